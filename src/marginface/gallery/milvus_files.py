"""The folder of an embedded gallery, read without milvus-lite and checked against a record. Called by `store`.

milvus-lite repairs what it opens: it falls back to an older manifest, deletes Parquet files that the manifest does not
name, and skips what it cannot read. This module reads the files as they are and changes none, and `Store` lets
milvus-lite open a folder only after every face on record was read.

Layout of milvus-lite 3.2: `aliases.json` names the collection; its `manifest.json` lists Parquet files of rows ("data")
and of deletions ("delta"); Arrow streams in `wal/` hold both since then. Of each id, the row or deletion with the
highest `_seq` counts. `marginface.json` beside it is the record of how many faces there must be.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.filenames import utf8_name
from marginface.files import replace_file, sync
from marginface.optional_imports import load_library
from marginface.readers.mapped import map_file
from marginface.readers.table_bounds import MOST_GROUPS, check_messages, rows_at_once
from marginface.untrusted import free_memory, read_json

try:
    import fcntl
except ImportError:  # Windows: milvus-lite's own lock still keeps two writers apart
    fcntl = None  # type: ignore[assignment]

TEXTS = {"id": 64, "name": 512, "source": 4096, "photo": 64, "picture": 65535, "checksum": 64}
"""Columns of text -> longest value in bytes; besides them there are weight, a float32, and vector."""
FIELDS = [*TEXTS, "weight", "vector"]
MODEL_ROW = "@model"  # id of the row that describes the model, in place of a face
FORMAT = 1
RECORD, LOCK = "marginface.json", "LOCK"
MADE_AT_OPENING = {LOCK, "collections", "databases", ".database-staging"}  # by milvus-lite, before anything is stored
LISTED = re.compile(r"(data|delta)/\1_\d+_\d+\.parquet")
ROWS = 1000
LONGEST_VECTOR = 1 << 15  # as Milvus has it


@dataclass(frozen=True)
class Record:
    """What a folder must hold. The number of faces is from `fewest` to `most`, which differ while a write is under way.

    model: whose vectors these are. erasing: somebody is, and the store must be written anew. dropping: collection whose
    deletion was begun. stamp: changes with every write.
    """

    model: dict[str, Any]
    fewest: int = 0
    most: int = 0
    erasing: bool = False
    dropping: str = ""
    stamp: int = 0


class MilvusFiles:
    """path: the folder. alias: the name in `aliases.json`. Reading raises InputError for everything that is damaged."""

    def __init__(self, path: Path, alias: str) -> None:
        self.path, self._alias = path, alias

    @contextmanager
    def locked(self, exclusive: bool) -> Iterator[None]:
        """Keeps writers out, as milvus-lite's own lock does; with `exclusive` readers too. Never waits."""
        if fcntl is None or not os.path.lexists(self.path / LOCK):  # nothing was written yet, or the lock is lost
            yield
            return
        with self._sentence(LOCK):
            lock = os.open(self.path / LOCK, os.O_RDONLY | os.O_NONBLOCK)
        try:
            with self._sentence(LOCK):
                fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            yield
        finally:
            os.close(lock)

    def record(self) -> Record | None:
        """None where nothing was ever stored."""
        if not os.path.lexists(self.path):
            return None
        if not self.path.is_dir():
            raise InputError(f"{self.path} is a file, and a gallery is a folder; give another --gallery")
        with self._sentence(RECORD):
            names = {path.name for path in self.path.iterdir() if not path.name.startswith(f".{RECORD}.")}
            if RECORD not in names:
                if names <= MADE_AT_OPENING and not any(self.path.glob("collections/*")):
                    return None
                raise InputError(
                    f"{self.path} is no gallery of this version of marginface, or has lost its {RECORD}; give another "
                    f"--gallery, or restore that file"
                )
            content = read_json(self.path / RECORD)
            if content["format"] != FORMAT:
                raise InputError(f"{self.path} is of format {content['format']}, not {FORMAT}; update marginface")
            record = Record(**content["record"])
            if content["checksum"] != _digest(asdict(record)):
                raise ValueError("its checksum does not fit")
        return record

    def write_record(self, record: Record) -> None:
        record = replace(record, stamp=time.time_ns())
        content = {"format": FORMAT, "record": asdict(record), "checksum": _digest(asdict(record))}
        with replace_file(self.path / RECORD) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")

    @property
    def collection(self) -> str | None:
        """The collection under the alias; None where nothing was ever stored."""
        record = self.record()
        if record is None:
            return None
        with self._sentence("aliases.json"):
            if not record.most and not (self.path / "aliases.json").exists():
                return None
            name = read_json(self.path / "aliases.json")[self._alias]
            if not self._owns(name):
                raise ValueError(f"{name} is no collection")
            if not (self.path / "collections" / name).is_dir():
                raise ValueError(f"collections/{name} is missing")
        return str(name)

    def rows(self, pictures: bool = False) -> Iterator[dict[str, Any]]:
        """Every face as `Store` wrote it, `vector` as float32; as many as are on record, otherwise InputError."""
        record, collection = self.record(), self.collection
        if record is None or collection is None:
            return
        with self._sentence("the folder"):
            self._check_kinds()
        with self._sentence(f"collections/{collection}"):
            folder = self.path / "collections" / collection
            listed = self._listed(folder)
            alive = self._alive(folder, listed)
            if not record.fewest <= len(alive) <= record.most:
                raise ValueError(f"{len(alive)} faces can be read, and {record.fewest} were stored")
            wanted = [name for name in FIELDS if pictures or name != "picture"]
            size = 0
            for batch in _batches(folder, listed, "data", ["_seq", *wanted]):
                size += batch["vector"].nbytes
                if size > free_memory() // 2:
                    raise ValueError(f"its vectors take {size:,} bytes, more than half of the free memory")
                for sequence, row in _as_rows(batch, wanted):
                    if alive.get(row["id"]) == sequence:
                        del alive[row["id"]]  # a row may stand in a Parquet file and still in the stream
                        yield row

    def finish_dropping(self) -> None:
        """Deletes the rest of a collection whose deletion was begun by a process that was killed."""
        record = self.record()
        if record is None or not record.dropping:
            return
        rest = self.path / "collections" / record.dropping
        if record.dropping != self.collection and self._owns(record.dropping) and rest.exists():
            shutil.rmtree(rest)
        self.write_record(replace(record, dropping=""))

    def sync(self) -> None:
        """Wait until the disk has every file: milvus-lite does not."""
        for path in [self.path, *self.path.rglob("*")]:
            sync(path)

    def _owns(self, collection: str) -> bool:
        return re.fullmatch(rf"{re.escape(self._alias)}_\d+", collection) is not None

    def _listed(self, folder: Path) -> dict[str, list[Path]]:
        """Parquet files of rows and of deletions, by the manifest; checks that too, and the schema."""
        schema = read_json(folder / "schema.json")
        texts = {
            field["name"]: field["max_length"]
            for field in schema["fields"]
            if (field["dtype"], field["nullable"], field["is_primary"]) == ("varchar", False, field["name"] == "id")
        }
        kinds = {field["name"]: field["dtype"] for field in schema["fields"]}
        if schema["schema_format_version"] != 2 or texts != TEXTS or list(kinds) != FIELDS:
            raise ValueError("schema.json is not of this version")
        if (kinds["weight"], kinds["vector"]) != ("float", "float_vector"):
            raise ValueError("schema.json is not of this version")
        if not (folder / "manifest.json").exists() and not (folder / "manifest.json.prev").exists():
            return {"data": [], "delta": []}  # all is in the stream yet, or the record tells what is lost
        manifest = read_json(folder / "manifest.json")
        if manifest["manifest_format_version"] != 2 or list(manifest["partitions"]) != ["_default"]:
            raise ValueError("manifest.json is not of this version")
        listed = {}
        for kind in ("data", "delta"):
            names = manifest["partitions"]["_default"][f"{kind}_files"]
            if not all(LISTED.fullmatch(name) for name in names):
                raise ValueError("manifest.json names other files than its own")
            listed[kind] = [folder / "partitions" / "_default" / name for name in names]
        last = max((int(path.stem.split("_")[2]) for paths in listed.values() for path in paths), default=0)
        if manifest["current_seq"] < last:
            raise ValueError("manifest.json counts fewer rows than it lists")
        return listed

    def _alive(self, folder: Path, listed: dict[str, list[Path]]) -> dict[str, int]:
        """Ids of the faces -> `_seq` of the row that counts."""
        last: dict[str, dict[str, int]] = {"data": {}, "delta": {}}
        for kind, found in last.items():
            for batch in _batches(folder, listed, kind, ["_seq", "id"]):
                for id, sequence in zip(batch["id"].to_pylist(), batch["_seq"].to_pylist(), strict=True):
                    found[id] = max(sequence, found.get(id, -1))
        gone = last["delta"]
        return {id: at for id, at in last["data"].items() if at > gone.get(id, -1) and id != MODEL_ROW}

    def _check_kinds(self) -> None:
        """Neither a link, which could lead elsewhere, nor a pipe, which could be waited for in vain."""
        for path in self.path.rglob("*"):
            mode = path.lstat().st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise ValueError(f"{path.relative_to(self.path)} is neither a file nor a folder")

    @contextmanager
    def _sentence(self, part: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except BlockingIOError as error:
            raise InputError(f"{self.path} is in use by another process; try again when that has ended") from error
        except PermissionError as error:
            raise InputError(f"{error.filename or self.path} cannot be read ({error.strerror})") from error
        except Exception as error:  # pyarrow, JSON and the file system have no common base
            raise InputError(
                f"{self.path} is damaged: {part}: {short(error)}; nothing was changed; restore it from a copy, or "
                f"enrol into another --gallery"
            ) from error


def short(error: Exception) -> str:
    """A foreign exception's text on one line."""
    text = " ".join(str(getattr(error, "message", error)).split())[:160]
    return f"{text} is not in it" if isinstance(error, KeyError) else text or type(error).__name__


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _batches(folder: Path, listed: dict[str, list[Path]], kind: str, columns: Sequence[str]) -> Iterator[Any]:
    """Arrow record batches: the Parquet files' first."""
    parquet = load_library("pyarrow.parquet")
    for path in listed[kind]:
        with utf8_name(path) as name, parquet.ParquetFile(name) as file:
            rows = _rows_at_once(path, file, columns)
            for batch in file.iter_batches(rows, columns=list(columns), use_threads=False):
                _check_batch(batch.select(list(columns)), path)
                yield batch.select(list(columns))
    for path in sorted((folder / "wal").glob(f"wal_{kind}_*.arrow")):
        for batch in _stream(path):
            yield batch.select(list(columns))


def _stream(path: Path) -> Iterator[Any]:
    """Batches until the first that is not whole, as a killed writer leaves it; the record tells if more is lost."""
    arrow = load_library("pyarrow")
    try:
        with utf8_name(path) as name, arrow.OSFile(name, "rb") as source:
            check_messages(iter(arrow.ipc.MessageReader.open_stream(source)))
    except (arrow.ArrowInvalid, OSError):
        pass
    try:
        with utf8_name(path) as name, arrow.OSFile(name, "rb") as source:
            for batch in arrow.ipc.open_stream(source):
                batch.validate(full=True)
                _check_batch(batch, path)
                yield batch
    except (arrow.ArrowInvalid, OSError):
        return


def _rows_at_once(path: Path, file: Any, columns: Sequence[str]) -> int:
    """How many rows of a Parquet file to read at a time. Raises ValueError for what its bytes do not bear out."""
    rows, data = ROWS, map_file(path)
    if not 0 <= file.metadata.num_rows <= len(data) or file.metadata.num_row_groups > MOST_GROUPS:
        raise ValueError(f"{path.name} claims {file.metadata.num_rows:,} rows in {len(data):,} bytes")
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        for column in (group.column(place) for place in range(group.num_columns)):
            name = column.path_in_schema.partition(".")[0]
            if name not in columns:
                continue
            values = max(group.num_rows, 1) * (LONGEST_VECTOR if name == "vector" else 1)
            if column.num_values > values:
                raise ValueError(f"{path.name}: its column {name} claims {column.num_values:,} values")
            rows = min(rows, rows_at_once(data, [column], column.num_values))
    return rows


def _check_batch(batch: Any, path: Path) -> None:
    """Raises ValueError for columns that are not of our types, and for texts longer than Milvus takes."""
    types, compute = load_library("pyarrow").types, load_library("pyarrow.compute")
    for name in set(batch.schema.names) & {"_seq", *FIELDS}:
        kind, longest = batch[name].type, TEXTS.get(name)
        if name == "vector":
            whole = (types.is_fixed_size_list(kind) or types.is_list(kind)) and types.is_float32(kind.value_type)
        elif longest is not None:
            whole = types.is_string(kind) and (compute.max(compute.binary_length(batch[name])).as_py() or 0) <= longest
        else:
            whole = types.is_integer(kind) or types.is_float32(kind)
        if not whole:
            raise ValueError(f"{path.name}: its column {name} holds what a gallery does not ({kind!s:.80})")


def _as_rows(batch: Any, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    lists = {name: batch[name].to_pylist() for name in columns if name != "vector"}
    vectors = np.array(batch["vector"].flatten(), np.float32).reshape(batch.num_rows, -1)  # a copy, free of the batch
    for number, sequence in enumerate(batch["_seq"].to_pylist()):
        yield sequence, {**{name: values[number] for name, values in lists.items()}, "vector": vectors[number]}
