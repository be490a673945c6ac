"""Where enrolled faces are kept: Milvus, as a file on this machine or a server, by its address alone. For `people`.

`gallery.db` is a file (a folder of them) that milvus-lite reads and writes inside this process; an address such as
`http://127.0.0.1:19530` is a server, be it `milvus-lite server` or a cluster. A row is one face: its id, the person's
name, the photograph's file name, a small picture of the face, the weight for pooling, and the vector.
"""

import base64
import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marginface.detection.base import load_library
from marginface.errors import InputError

FIELDS = ["id", "name", "source", "picture", "weight", "vector"]
MODEL_ROW = "@model"  # the id of the row that says which model the vectors are of, in place of a face
BATCH = 1000
PAGE = 16_000  # rows without pictures, some 2 kB each; a page looks through the whole store, and Milvus gives 16,384


@dataclass(frozen=True)
class Face:
    """One enrolled face. picture: JPEG. vector: float32 (D,), L2-normalised. id: "" until it is stored."""

    name: str
    source: str
    picture: bytes
    weight: float
    vector: np.ndarray
    id: str = ""


class Store:
    """Faces under an alias, so that `rewrite` can put a fresh collection in the place of the old in one step."""

    def __init__(self, address: str, collection: str = "faces") -> None:
        library = load_library("pymilvus")
        if "://" not in address and not address.endswith(".db"):
            raise InputError(f"{address} is no gallery: give a file that ends in .db, or a server as http://HOST:PORT")
        if "://" not in address:
            load_library("milvus_lite")
        for name in (
            "pymilvus",
            "milvus_lite",
        ):  # they print a traceback for "is there an alias yet?" and "is it locked?"
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            # a busy machine may take its time; by default pymilvus pings more often than milvus-lite puts up with
            self._client = library.MilvusClient(address, timeout=60, grpc_options={"grpc.keepalive_time_ms": 600_000})
        except Exception as error:  # no common base class: connection, lock and format errors
            raise InputError(f"{address} cannot be opened ({_short(error)}); is another process using it?") from error
        self.address, self._library, self._alias = address, library, collection
        self._finish_rewrite()

    def close(self) -> None:
        self._client.close()

    @property
    def exists(self) -> bool:
        """Whether anything was ever stored."""
        return self._current() is not None

    def create(self, model: dict[str, Any], length: int) -> None:
        """model: what to say of the vectors; length: of each."""
        self._client.create_alias(self._new_collection(model, length), self._alias)

    def model(self) -> dict[str, Any]:
        rows = self._client.get(self._alias, ids=[MODEL_ROW], output_fields=["source"])
        if not rows:
            raise InputError(f"{self.address} holds no gallery of marginface; give another file")
        description: dict[str, Any] = json.loads(rows[0]["source"])
        return description

    def add(self, faces: Sequence[Face]) -> list[str]:
        """Their new ids. They are on the disk, or with the server, when this returns."""
        return self._insert(self._alias, faces)

    @property
    def collection(self) -> str:
        """What the alias points to: another one after each `rewrite`."""
        return self._current() or ""

    def count(self) -> int:
        """How many faces."""
        return int(self._client.query(self._alias, filter="", output_fields=["count(*)"])[0]["count(*)"]) - 1

    def faces(self, pictures: bool = False, after: str = "") -> Iterator[Face]:
        """Every face by id, or those after an id; without `pictures` these are empty."""
        fields = [name for name in FIELDS if pictures or name != "picture"]
        chosen = f'id != "{MODEL_ROW}"' + (f' and id > "{after}"' if after else "")
        pages = self._client.query_iterator(
            self._alias, filter=chosen, output_fields=fields, batch_size=PAGE // 4 if pictures else PAGE
        )
        try:
            while page := pages.next():
                yield from map(_face, page)
        finally:
            pages.close()

    def pictures(self, ids: Sequence[str]) -> list[bytes]:
        """JPEG of each face, in this order."""
        rows = self._client.get(self._alias, ids=list(ids), output_fields=["id", "picture"]) if ids else []
        found = {row["id"]: base64.b64decode(row["picture"]) for row in rows}
        return [found.get(face, b"") for face in ids]

    def remove(self, ids: Sequence[str]) -> None:
        """No longer found; the bytes stay in the store's files until `rewrite`."""
        for start in range(0, len(ids), BATCH):
            self._client.delete(self._alias, ids=list(ids[start : start + BATCH]))

    def rewrite(self) -> None:
        """Copies what is left into a fresh collection and drops the old one with its files."""
        old = self._current()
        length = next(f["params"]["dim"] for f in self._describe(old)["fields"] if f["name"] == "vector")
        new = self._new_collection(self.model(), int(length))
        batch: list[Face] = []
        for face in self.faces(pictures=True):
            batch.append(face)
            if len(batch) == BATCH:
                self._insert(new, batch)
                batch = []
        self._insert(new, batch)
        self._client.flush(new)
        self._client.alter_alias(new, self._alias)
        self._client.drop_collection(old)

    def _finish_rewrite(self) -> None:
        """After a crash in `rewrite` there are two collections: what the alias points to is whole."""
        current = self._current()
        for name in self._client.list_collections():
            if name.startswith(f"{self._alias}_") and name != current:
                self._client.drop_collection(name)
        if current is not None:
            self._client.load_collection(current)

    def _current(self) -> str | None:
        try:
            name: str = self._client.describe_alias(self._alias)["collection_name"]
        except self._library.MilvusException:
            return None
        return name

    def _describe(self, name: str | None) -> dict[str, Any]:
        description: dict[str, Any] = self._client.describe_collection(name)
        return description

    def _new_collection(self, model: dict[str, Any], length: int) -> str:
        kind = self._library.DataType
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", kind.VARCHAR, is_primary=True, max_length=64)
        for name, longest in (("name", 512), ("source", 4096), ("picture", 65535)):
            schema.add_field(name, kind.VARCHAR, max_length=longest)
        schema.add_field("weight", kind.FLOAT)
        schema.add_field("vector", kind.FLOAT_VECTOR, dim=length)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        name = f"{self._alias}_{time.time_ns()}"
        self._client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
        row = Face("", json.dumps(model), b"", 0.0, np.zeros(length, np.float32), MODEL_ROW)
        self._insert(name, [row])
        return name

    def _insert(self, collection: str, faces: Sequence[Face]) -> list[str]:
        start = time.time_ns()
        rows = [_row(face, f"{start:016x}{number:08x}") for number, face in enumerate(faces)]
        for start in range(0, len(rows), BATCH):
            self._client.insert(collection, rows[start : start + BATCH])
        return [row["id"] for row in rows]


def _row(face: Face, stamp: str) -> dict[str, Any]:
    """stamp: so that ids rise with time, and what came later can be asked for."""
    return {
        "id": face.id or stamp + uuid.uuid4().hex[:8],
        "name": face.name,
        "source": face.source,
        "picture": base64.b64encode(face.picture).decode(),
        "weight": float(face.weight),
        "vector": face.vector.astype(np.float32).tolist(),
    }


def _face(row: dict[str, Any]) -> Face:
    picture = base64.b64decode(row.get("picture", ""))
    vector = np.array(row["vector"], np.float32)
    return Face(row["name"], row["source"], picture, row["weight"], vector, row["id"])


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
