"""Where enrolled faces are kept: Milvus, as a folder on this machine or a server, by its address alone. For `people`.

`gallery.db` is a folder that milvus-lite writes inside this process and `milvus_files` reads; an address such as
`http://127.0.0.1:19530` is a server, be it `milvus-lite server` or a cluster. A row is one face: its id, the person's
name, the photograph's file name and checksum, a small picture of the face, the weight for pooling, and the vector.
"""

import base64
import hashlib
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.gallery.milvus_files import FIELDS, FORMAT, MODEL_ROW, TEXTS, MilvusFiles, Record, short
from marginface.optional_imports import load_library
from marginface.untrusted import parse_json

BATCH = 1000
PAGE = 16_000  # rows without pictures, some 2 kB each; a page looks through the whole store, and Milvus gives 16,384
SECONDS = 60.0  # for one call


@dataclass(frozen=True)
class Face:
    """One enrolled face.

    photo: SHA-256 of the photograph's bytes, hexadecimal, "" when unknown. picture: JPEG. vector: float32 (D,),
    L2-normalised. id: "" until it is stored.
    """

    name: str
    source: str
    picture: bytes
    weight: float
    vector: np.ndarray
    photo: str = ""
    id: str = ""


class Store:
    """Faces under an alias, so that `rewrite` can put a fresh collection in the place of the old in one step.

    address: a folder ending in .db, or a server's URL. Without `write` nothing is changed and others may write. Every
    method raises InputError for what is damaged, foreign, in use or unreachable.
    """

    def __init__(self, address: str, collection: str = "faces", *, write: bool = False) -> None:
        if "://" not in address and not address.endswith(".db"):
            raise InputError(
                f"{address} is no gallery: give a folder that ends in .db, or a server as http://HOST:PORT"
            )
        self.address, self._alias, self._write = address, collection, write
        self._files = None if "://" in address else MilvusFiles(Path(address), collection)
        self._client: Any = None
        self._opened = False  # by milvus-lite, which locks the folder
        self._record = Record({})
        self._loaded: list[Face] | None = None
        try:
            if self._files is None:
                self._connect()
            elif write:
                self._open_folder(self._files)
            if write and self._client is not None:
                self._finish_rewrite()
                if self._record.erasing:
                    self.rewrite()
        except BaseException:
            self.close()
            raise

    def _open_folder(self, files: MilvusFiles) -> None:
        """Lets milvus-lite open the folder after all of it was read, pictures too."""
        if not files.path.absolute().parent.is_dir():
            raise InputError(f"{files.path.absolute().parent} does not exist; make it, or give another --gallery")
        with files.locked(exclusive=True):
            self._loaded = [replace(self._face(row), picture=b"") for row in files.rows(pictures=True)]
            files.finish_dropping()
            record = files.record()
        if record is None:
            return
        self._connect()
        found = self._checksums(current).keys() if (current := self._current()) else set()
        if files.record() != record or found - {MODEL_ROW} != {face.id for face in self._loaded}:
            raise InputError(f"{self.address} was changed by another process meanwhile; try again")
        self._record = replace(record, fewest=len(self._loaded), most=len(self._loaded))

    def _connect(self) -> None:
        library = load_library("pymilvus")
        if self._files is not None:
            load_library("milvus_lite")
        for name in ("pymilvus", "milvus_lite"):  # they print tracebacks besides raising errors
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with self._sentence("open it"):
            self._opened = True
            # a busy machine may take its time; by default pymilvus pings more often than milvus-lite puts up with
            self._client = library.MilvusClient(
                self.address, timeout=SECONDS, grpc_options={"grpc.keepalive_time_ms": 600_000}
            )
        current = self._current()
        if current is None:
            return
        fields = [field["name"] for field in self._call("describe_collection", current)["fields"]]
        if fields != FIELDS:
            raise InputError(f"{self.address} holds no gallery of this version of marginface; give another --gallery")
        self._call("load_collection", current)

    def close(self) -> None:
        """Lets others write to the folder."""
        with self._sentence("close it"):
            if self._client is not None:
                self._client.close()
            if self._opened and self._files is not None:
                load_library("milvus_lite.server_manager").server_manager_instance.release_server(self.address)
                self._files.sync()
        self._client, self._opened = None, False

    @property
    def exists(self) -> bool:
        """Whether anything was ever stored."""
        return bool(self.collection)

    @property
    def collection(self) -> str:
        """What the alias points to: another one after each `rewrite`; "" where nothing was ever stored."""
        if self._client is None and self._files is not None:
            with self._files.locked(exclusive=False):
                return self._files.collection or ""
        return self._current() or ""

    def create(self, model: dict[str, Any], length: int) -> None:
        """model: what to say of the vectors; length: of each."""
        self._must_write()
        if self._client is None and self._files is not None:
            self._connect()
            if self._files.record() is not None:
                raise InputError(f"{self.address} was made by another process meanwhile; try again")
        self._note(model=model, fewest=0, most=0)
        self._call("create_alias", self._new_collection(model, length), self._alias)

    def model(self) -> dict[str, Any]:
        """What `create` was given."""
        if self._files is not None:
            record = self._files.record()
            return record.model if record is not None else {}
        rows = self._call("get", self._alias, ids=[MODEL_ROW], output_fields=["source"])
        if not rows:
            raise InputError(f"{self.address} holds no gallery of marginface; give another address")
        with self._sentence("read the model"):
            description = parse_json(rows[0]["source"])
            if description["format"] != FORMAT:
                raise InputError(
                    f"{self.address} is of format {description['format']}, not {FORMAT}; update marginface"
                )
            model: dict[str, Any] = description["model"]
        return model

    def add(self, faces: Sequence[Face]) -> list[str]:
        """Their ids; they are on the disk, or with the server, when this returns.

        The id follows from the photograph and the name, so that a face stored twice is there once.
        """
        ids = [face.id or _id(face) for face in faces]
        named = {id: replace(face, id=id) for id, face in zip(ids, faces, strict=True)}
        known = self._known(list(named))
        new = [face for id, face in named.items() if id not in known]
        with self._recorded(len(new)):
            self._insert(self._alias, new)
        return ids

    def load(self) -> list[Face]:
        """Every face, without pictures."""
        if self._loaded is not None:  # read at opening
            faces, self._loaded = self._loaded, None
            return faces
        return list(self.faces())

    def faces(self, pictures: bool = False) -> Iterator[Face]:
        """Every face; without `pictures` these are empty."""
        if self._client is None and self._files is not None:
            with self._files.locked(exclusive=False):
                yield from map(self._face, self._files.rows(pictures))
            return
        fields = [name for name in FIELDS if pictures or name != "picture"]
        for row in self._query(self._alias, fields, PAGE // 4 if pictures else PAGE):
            if row["id"] != MODEL_ROW:
                yield self._face(row)

    def pictures(self, ids: Sequence[str]) -> list[bytes]:
        """JPEG of each face, in this order."""
        if self._client is None:
            found = {face.id: face.picture for face in self.faces(pictures=True)}
        else:
            rows = self._call("get", self._alias, ids=list(ids), output_fields=["id", "picture"]) if ids else []
            found = {row["id"]: base64.b64decode(row["picture"]) for row in rows}
        return [found.get(face, b"") for face in ids]

    def remove(self, ids: Sequence[str]) -> None:
        """No longer found; the bytes stay in the store's files until `rewrite`."""
        known = sorted(self._known(ids))
        with self._recorded(-len(known)):
            for start in range(0, len(known), BATCH):
                self._call("delete", self._alias, ids=known[start : start + BATCH])

    def _known(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are stored."""
        parts = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
        rows = (self._call("get", self._alias, ids=list(part), output_fields=["id"]) for part in parts)
        return {row["id"] for part in rows for row in part}

    def erase(self, ids: Sequence[str]) -> None:
        """Like `remove`, and leaves nothing in the store's files; a folder's next writer ends what a crash left."""
        self._must_write()
        self._note(erasing=True)
        self.remove(ids)
        self.rewrite()

    def rewrite(self) -> None:
        """Copies what is left into a fresh collection and drops the old one with its files."""
        self._must_write()
        old = self.collection
        fields = self._call("describe_collection", old)["fields"]
        length = next(field["params"]["dim"] for field in fields if field["name"] == "vector")
        new = self._new_collection(self.model(), int(length))
        batch: list[Face] = []
        for face in self.faces(pictures=True):
            batch.append(face)
            if len(batch) == BATCH:
                self._insert(new, batch)
                batch = []
        self._insert(new, batch)
        self._call("flush", new)
        if self._checksums(new) != self._checksums(old):
            raise InputError(f"{self.address} could not be copied whole, so the old faces stay; try again")
        self._call("alter_alias", new, self._alias)
        self._drop(old)
        self._note(erasing=False)

    def _drop(self, name: str) -> None:
        """A process may be killed half-way through a folder, so the record says that this was begun."""
        if self._files is not None:
            self._files.sync()
        self._note(dropping=name)
        self._call("drop_collection", name)
        self._note(dropping="")

    def _finish_rewrite(self) -> None:
        """Drops what a crash in `rewrite` left, where all of it is in the collection that is in use."""
        current = self._current()
        kept = self._checksums(current) if current is not None else {}
        for name in self._call("list_collections"):
            if not re.fullmatch(rf"{re.escape(self._alias)}_\d+", name) or name == current:
                continue
            self._call("load_collection", name)
            left = self._checksums(name)
            if all(kept.get(id) == checksum for id, checksum in left.items() if id != MODEL_ROW):
                self._drop(name)

    @contextmanager
    def _recorded(self, change: int) -> Iterator[None]:
        """Writes down for a folder how many faces may be found while their number changes, and how many afterwards."""
        self._must_write()
        fewest, most = self._record.fewest, self._record.most
        self._note(fewest=fewest + min(change, 0), most=most + max(change, 0))
        yield
        if self._files is not None:
            self._files.sync()
        self._note(fewest=fewest + change, most=most + change)

    def _note(self, **changes: Any) -> None:
        if self._files is not None:
            self._record = replace(self._record, **changes)
            self._files.write_record(self._record)

    def _current(self) -> str | None:
        if self._alias not in self._call("list_aliases")["aliases"]:
            return None
        return str(self._call("describe_alias", self._alias)["collection_name"])

    def _must_write(self) -> None:
        if not self._write:
            raise InputError(f"{self.address} was opened to be read, not to be changed")
        self._loaded = None

    def _new_collection(self, model: dict[str, Any], length: int) -> str:
        library = load_library("pymilvus")
        kind = library.DataType
        schema = library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for name, longest in TEXTS.items():
            schema.add_field(name, kind.VARCHAR, max_length=longest, is_primary=name == "id")
        schema.add_field("weight", kind.FLOAT)
        schema.add_field("vector", kind.FLOAT_VECTOR, dim=length)
        index = library.MilvusClient.prepare_index_params()
        if self._files is None:  # a server loads no collection without one; in a folder it would be another copy
            index.add_index("vector", index_type="FLAT", metric_type="IP")
        name = f"{self._alias}_{time.time_ns()}"
        self._call("create_collection", name, schema=schema, index_params=index, consistency_level="Strong")
        description = json.dumps({"format": FORMAT, "model": model})
        self._insert(name, [Face("", description, b"", 0.0, np.zeros(length, np.float32), id=MODEL_ROW)])
        return name

    def _insert(self, collection: str, faces: Sequence[Face]) -> None:
        """On a server a face that another client has just stored is replaced; a folder has one writer."""
        method = "upsert" if self._files is None else "insert"
        for start in range(0, len(faces), BATCH):
            self._call(method, collection, [_row(face) for face in faces[start : start + BATCH]])

    def _checksums(self, collection: str) -> dict[str, str]:
        """Of each row, by its id."""
        return {row["id"]: row["checksum"] for row in self._query(collection, ["id", "checksum"], PAGE)}

    def _query(self, collection: str, fields: list[str], page: int) -> Iterator[dict[str, Any]]:
        """Every row of a collection."""
        pages = self._call("query_iterator", collection, output_fields=fields, batch_size=page)
        with self._sentence("read all rows"):
            try:
                while rows := pages.next():
                    yield from rows
            finally:
                pages.close()

    def _call(self, method: str, *words: Any, **more: Any) -> Any:
        """Calls a method of the client."""
        with self._sentence(method.replace("_", " ")):
            return getattr(self._client, method)(*words, timeout=SECONDS, **more)

    @contextmanager
    def _sentence(self, step: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # pymilvus and gRPC have no common base
            advice = (
                "check that Milvus runs there"
                if self._files is None
                else "is it in use, full, or not to be written to?"
            )
            raise InputError(f"{self.address}: Milvus could not {step} ({short(error)}); {advice}") from error

    def _face(self, row: dict[str, Any]) -> Face:
        """Raises InputError when the row is not as it was written."""
        with self._sentence("read a face"):
            picture = base64.b64decode(row.get("picture", ""))
            vector = np.array(row["vector"], np.float32)
            face = Face(row["name"], row["source"], picture, row["weight"], vector, row["photo"], row["id"])
            whole, stored = _checksum(face), row["checksum"]
            if stored[:32] != whole[:32] or ("picture" in row and stored != whole):
                raise InputError(
                    f"{self.address} is damaged: a face of {face.name!r} is not as it was stored; nothing was changed; "
                    f"restore it from a copy, or enrol into another --gallery"
                )
        return face


def _id(face: Face) -> str:
    """The same for a photograph and a name; without a photograph one of its own."""
    return hashlib.sha256(f"{face.photo} {face.name}".encode()).hexdigest()[:32] if face.photo else uuid.uuid4().hex


def _row(face: Face) -> dict[str, Any]:
    return {
        "id": face.id,
        "name": face.name,
        "source": face.source,
        "photo": face.photo,
        "picture": base64.b64encode(face.picture).decode(),
        "checksum": _checksum(face),
        "weight": float(face.weight),
        "vector": face.vector.astype(np.float32).tolist(),
    }


def _checksum(face: Face) -> str:
    """32 digits for all but the picture, and 32 for that."""
    words = json.dumps([face.id, face.name, face.source, face.photo, float(np.float32(face.weight))])
    rest = hashlib.sha256(words.encode() + face.vector.astype("<f4").tobytes())
    return rest.hexdigest()[:32] + hashlib.sha256(face.picture).hexdigest()[:32]
