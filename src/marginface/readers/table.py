"""Labelled images in Parquet files and in folders saved by Hugging Face `datasets`. Opened by `open_reader`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import Record
from marginface.readers.names import number_labels, spelt
from marginface.readers.table_parts import Table
from marginface.untrusted import LARGEST_IMAGE, parse_json

IMAGES = ("image", "img", "jpg", "png", "face", "bytes")
LABELS = ("label", "labels", "identity", "person", "person_id", "subject", "class", "cls", "target", "id")


class TableReader:
    """Reads a column of encoded images, `{bytes, path}` or plain bytes, and a column of labels.

    Class labels with names, as `datasets` keeps them, stand as they are; others are in the order of `in_order`, and
    `class_names` tells what was written. A key is
    the path of the image if the table has it, else the number of the row.

    Arrow files are mapped. Of Parquet only whole row groups can be read, which makes shuffled reading slow: a
    set to train on is better converted to RecordIO once.

    Raises InputError, naming file and row, if the files are damaged or have no such columns.
    """

    def __init__(self, path: str | os.PathLike[str], allow_outside: bool = False) -> None:
        self.path = Path(path)
        self._table = Table(self.path, allow_outside)
        self._image = find_column(self._table, IMAGES, "images")
        check_embedded(self._table, self._image)
        label = find_column(self._table, LABELS, "labels")
        self.class_names: Sequence[str] = _declared_names(self._table.schema, label)
        self.labels = self._labels(label)
        self.num_classes = self.declared_classes = len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[Record]:
        rows = self._table.rows(indices, (self._image,))
        return [self._record(int(index), row[self._image]) for index, row in zip(indices, rows, strict=True)]

    def _record(self, index: int, value: Any) -> Record:
        image, key = encoded_image(value, self._table.where(index))
        return Record(image, int(self.labels[index]), key or str(index))

    def _labels(self, column: str) -> np.ndarray:
        values = self._table.column(column)
        if len(values) == 0:
            raise InputError(f"{self.path}: the table has no rows.")
        if values.dtype.kind not in "iu" and not all(isinstance(value, str) for value in values):
            raise InputError(f"{self.path}: its column {column} should hold whole numbers or names, and no gaps.")
        if not self.class_names:
            written, places = np.unique(values, return_inverse=True)
            labels, self.class_names = number_labels(map(str, written), places)
            return labels
        if values.dtype.kind not in "iu":
            raise InputError(f"{self.path}: its column {column} has names, although it is declared as numbers.")
        labels = np.asarray(values, dtype=np.int64)
        wrong = (labels < 0) | (labels >= len(self.class_names))
        if wrong.any():
            index = int(wrong.argmax())
            raise InputError(f"{self._table.where(index)}: its {column} {labels[index]} is none of those declared.")
        return labels


def find_column(table: Table, names: Sequence[str], what: str) -> str:
    """The first of `names` that the table has."""
    for name in names:
        if name in table.names:
            return name
    raise InputError(
        f"{table.path}: has no column of {what}; its columns are {', '.join(table.names)}; call one of them {names[0]}."
    )


def check_embedded(table: Table, column: str) -> None:
    """Raises InputError for a column that names the files of images instead of holding them."""
    value = table.rows([0], (column,))[0][column] if len(table) else None
    named = value if isinstance(value, str) else value.get("path") if isinstance(value, dict) else None
    if named and not (isinstance(value, dict) and value.get("bytes")):
        raise InputError(
            f"{table.path}: its column {column} holds paths such as {named!r:.100} instead of images; save the data set"
            f" with the images embedded."
        )


def encoded_image(value: Any, where: str) -> tuple[bytes, str | None]:
    """(bytes, path) of a cell as `datasets` fills it."""
    path = None
    if isinstance(value, dict):
        value, path = value.get("bytes"), value.get("path")
    if not isinstance(value, bytes):
        raise InputError(f"{where}: holds no image bytes; save the data set with the images embedded.")
    if len(value) > LARGEST_IMAGE:
        raise InputError(f"{where}: its image has {len(value):,} bytes, more than the {LARGEST_IMAGE:,} that are read.")
    return value, path


def _declared_names(schema: Any, column: str) -> list[str]:
    """The names of a ClassLabel of `datasets`, from the metadata of the file; empty if there is none."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, ValueError, TypeError):
        return []
    return [spelt(str(name)) for name in names] if isinstance(names, list) else []
