"""Verification sets saved by Hugging Face `datasets`, as CVLface publishes them. Opened by `open_verification`."""

from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import LazyRecords, Record, VerificationSet
from marginface.readers.containment import Bounds
from marginface.readers.table import IMAGES, check_embedded, encoded_image, find_column
from marginface.readers.table_parts import Table, is_table


def is_verification_table(path: Path) -> bool:
    """Whether `path` is a table with a column is_same."""
    return is_table(path) and "is_same" in Table(path, allow_outside=True).names  # the one who reads it checks


def read_table(path: Path, bounds: Bounds) -> VerificationSet:
    """Columns image, index (the order; images 2k and 2k + 1 are a pair) and is_same, given for both images."""
    table = Table(path, bounds.allow_outside)
    image = find_column(table, IMAGES, "images")
    check_embedded(table, image)
    same = table.column("is_same")
    numbers = table.column("index") if "index" in table.names else np.arange(len(same))
    known = same.dtype.kind in "bui" and numbers.dtype.kind in "ui" and not set(same.tolist()) - {0, 1}
    if not known or len(same) == 0 or len(same) % 2 or len(np.unique(numbers)) != len(same):
        raise InputError(f"{path}: should have two rows for each pair, with is_same true or false and index unique.")
    order = np.argsort(numbers)
    issame = same[order].astype(bool).reshape(-1, 2)
    if (issame[:, 0] != issame[:, 1]).any():
        raise InputError(f"{path}: pair {int((issame[:, 0] != issame[:, 1]).argmax())} says both same and different.")

    def record(position: int) -> Record:
        row = int(order[position])
        (cells,) = table.rows([row], (image,))
        encoded, _ = encoded_image(cells[image], table.where(row))
        return Record(encoded, position // 2, f"{path.name}:{position}")

    return VerificationSet(LazyRecords(len(order), record), issame[:, 0], path.name)
