"""Verification sets saved by Hugging Face `datasets`, as CVLface publishes them. Opened by `open_verification`."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import Record, VerificationSet
from marginface.readers.table import IMAGES, encoded_image, find_column
from marginface.readers.table_parts import Table, is_table


class TableImages(Sequence[Record]):
    """Records read from the table only when they are asked for; `order` are their rows."""

    def __init__(self, table: Table, column: str, order: np.ndarray) -> None:
        self._table, self._column, self._order = table, column, order

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        row = int(self._order[position])
        (cells,) = self._table.rows([row], (self._column,))
        image, _ = encoded_image(cells[self._column], self._table.where(row))
        return Record(image, position // 2, f"{self._table.path.name}:{position}")


def is_verification_table(path: Path) -> bool:
    """Whether `path` is a table with a column is_same."""
    return is_table(path) and "is_same" in Table(path).names


def read_table(path: Path) -> VerificationSet:
    """Columns image, index (the order; images 2k and 2k + 1 are a pair) and is_same, given for both images."""
    table = Table(path)
    image = find_column(table, IMAGES, "images")
    same = table.column("is_same")
    numbers = table.column("index") if "index" in table.names else np.arange(len(same))
    known = same.dtype.kind in "bui" and numbers.dtype.kind in "ui" and not set(same.tolist()) - {0, 1}
    if not known or len(same) == 0 or len(same) % 2 or len(np.unique(numbers)) != len(same):
        raise InputError(f"{path}: should have two rows for each pair, with is_same true or false and index unique.")
    order = np.argsort(numbers)
    issame = same[order].astype(bool).reshape(-1, 2)
    if (issame[:, 0] != issame[:, 1]).any():
        raise InputError(f"{path}: pair {int((issame[:, 0] != issame[:, 1]).argmax())} says both same and different.")
    return VerificationSet(TableImages(table, image, order), issame[:, 0], path.name)
