"""Writes Parquet as Hugging Face `datasets` does. Called by `convert`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from marginface.filenames import as_text
from marginface.optional_imports import load_library
from marginface.readers.base import Record
from marginface.readers.writer import Contents, encoded

ROWS_A_GROUP = 100  # as `datasets` chooses for images
SHARD_BYTES = 256 << 20


class TableWriter:
    """data/train-00000-of-0000N.parquet with the columns image, {bytes, path}, and label; a path is the key."""

    def __init__(self, folder: Path, contents: Contents, state: dict[str, int]) -> None:
        self._pyarrow = load_library("pyarrow", f"{folder}: writing this format")
        self._parquet = load_library("pyarrow.parquet", f"{folder}: writing this format")
        self._folder = folder / "data"
        self._folder.mkdir(exist_ok=True)
        self._done, self._shard = state.get("done", 0), state.get("shard", 0)
        self._schema = _schema(self._pyarrow, contents)
        self._waiting: list[dict[str, Any]] = []
        self._writer: Any = None
        self._file: BinaryIO
        self._shard_bytes = self._shard_rows = 0

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            image = encoded(record)
            self._waiting.append({"image": {"bytes": image, "path": as_text(record.key)}, "label": record.label})
            self._shard_bytes += len(image)
            if len(self._waiting) == ROWS_A_GROUP:
                self._write_group()
            if self._shard_bytes >= SHARD_BYTES:
                self._close_shard()

    def state(self) -> dict[str, int]:
        return {"done": self._done, "shard": self._shard}

    def finish(self) -> None:
        self._close_shard()
        for number in range(self._shard):
            self._path(number).rename(self._folder / f"train-{number:05d}-of-{self._shard:05d}.parquet")

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.partial"

    def _write_group(self) -> None:
        if not self._waiting:
            return
        if self._writer is None:
            self._file = self._path(self._shard).open("wb")  # pyarrow's own names are UTF-8
            self._writer = self._parquet.ParquetWriter(self._file, self._schema)
        table = self._pyarrow.Table.from_pylist(self._waiting, schema=self._schema)
        self._writer.write_table(table, row_group_size=ROWS_A_GROUP)
        self._shard_rows += len(self._waiting)
        self._waiting = []

    def _close_shard(self) -> None:
        self._write_group()
        if self._writer is None:
            return
        self._writer.close()
        self._file.close()
        self._done += self._shard_rows
        self._shard += 1
        self._writer, self._shard_bytes, self._shard_rows = None, 0, 0


def _schema(pyarrow: Any, contents: Contents) -> Any:
    """The columns, and the features as `datasets` expects them in the metadata."""
    label: dict[str, Any] = {"dtype": "int64", "_type": "Value"}
    if contents.class_names is not None:
        label = {"names": list(map(as_text, contents.class_names)), "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": label}
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", image), ("label", pyarrow.int64())])
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
