"""Galleries whose Parquet and Arrow files stand for more than they hold: refused within bounded memory and time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from bounded import outcome, refusal
from marginface.gallery.milvus_files import FIELDS, TEXTS, MilvusFiles, Record

SMALL = 400 << 20  # bytes that nothing here may take
NAME = "faces_1"


def read(path: Path) -> int:
    return sum(1 for _ in MilvusFiles(path, "faces").rows())


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """A folder without rows, with everything that says how they must look."""
    folder = tmp_path / "x.db" / "collections" / NAME
    for kind in ("data", "delta"):
        (folder / "partitions" / "_default" / kind).mkdir(parents=True)
    (folder / "wal").mkdir()
    (tmp_path / "x.db" / "aliases.json").write_text(json.dumps({"faces": NAME}))
    texts = [
        {"name": name, "dtype": "varchar", "max_length": longest, "nullable": False, "is_primary": name == "id"}
        for name, longest in TEXTS.items()
    ]
    others = [
        {"name": name, "dtype": kind, "nullable": False, "is_primary": False}
        for name, kind in (("weight", "float"), ("vector", "float_vector"))
    ]
    (folder / "schema.json").write_text(json.dumps({"schema_format_version": 2, "fields": texts + others}))
    files = {"data_files": ["data/data_1_9.parquet"], "delta_files": []}
    manifest = {"manifest_format_version": 2, "current_seq": 1 << 40, "partitions": {"_default": files}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    MilvusFiles(tmp_path / "x.db", "faces").write_record(Record({}, 0, 1 << 40))
    return tmp_path / "x.db"


def rows(count: int, **others: Any) -> pa.Table:
    """As milvus-lite writes them."""
    columns: dict[str, Any] = {name: [str(number) for number in range(count)] for name in FIELDS[:-2]}
    columns["_seq"] = pa.array(np.arange(count))
    columns["weight"] = pa.array(np.ones(count, np.float32))
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4 * count, np.float32)), 4)
    return pa.table({**columns, **others})


def of_one(count: int, value: Any) -> pa.Array:
    """One value in a dictionary, which the file holds once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def settle(gallery: Path, table: pa.Table, **options: Any) -> None:
    folder = gallery / "collections" / NAME / "partitions" / "_default" / "data"
    parquet.write_table(table, folder / "data_1_9.parquet", store_schema=False, **options)


def stream(gallery: Path, table: pa.Table, compression: str | None = None) -> None:
    settle(gallery, rows(1))
    path = gallery / "collections" / NAME / "wal" / "wal_data_1.arrow"
    with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)


BOMBS: dict[str, Callable[[Path], None]] = {
    "a name that repeats": lambda gallery: settle(gallery, rows(20_000, name=of_one(20_000, "y" * 900_000))),
    "an id that repeats": lambda gallery: settle(gallery, rows(20_000, id=of_one(20_000, "y" * 900_000))),
    "rows without bytes": lambda gallery: settle(gallery, pa.table({name: pa.nulls(9_000_000) for name in FIELDS})),
    "lists of texts": lambda gallery: settle(gallery, rows(2, name=[["a"], ["b"]])),
    "vectors of zeros": lambda gallery: settle(
        gallery,
        rows(300, vector=pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(300 << 16, np.float32)), 1 << 16)),
    ),
    "packed batches": lambda gallery: stream(gallery, rows(9, name=["y" * 1_000_000] * 9), "zstd"),
    "batches without bytes": lambda gallery: stream(
        gallery, pa.table({name: pa.nulls(1_000_000_000) for name in ["_seq", *FIELDS]})
    ),
    "batches of one text": lambda gallery: stream(gallery, rows(20_000, name=of_one(20_000, "y" * 900_000))),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_galleries_that_are_bombs(gallery: Path, bomb: str) -> None:
    BOMBS[bomb](gallery)
    told = refusal(read, gallery, memory=SMALL)
    assert told.startswith(f"{gallery} is damaged")


@pytest.mark.parametrize("write", [settle, stream])
def test_galleries_of_that_form_are_read(gallery: Path, write: Callable[..., None]) -> None:
    """The files above are bombs for what they hold, not for being no gallery."""
    write(gallery, rows(2000))
    assert outcome(read, gallery, memory=SMALL) == ("returned", 2000)
