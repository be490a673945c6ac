"""A CSV of what is known about images or people (sex, age, pose, sharpness ...): for `--by` and `--reject`."""

import csv
import itertools
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from marginface.errors import InputError
from marginface.untrusted import read_lines

MOST_GROUPS = 12
"""Numeric columns with more distinct values than this are cut into quarters of equal size."""


class Attributes:
    """A header and one row an image or a person; the first column names it, as the benchmark or its folder does."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.columns: list[str] = []
        self._rows: dict[str, list[str]] = {}
        try:
            self._read()
        except (OSError, csv.Error) as error:
            raise InputError(f"{path} cannot be read as CSV: {error}") from error
        if not self.columns or not self._rows:
            raise InputError(f"{path} must hold a header and rows: the name of an image or person, then its columns")

    def _read(self) -> None:
        cells = ([cell.strip() for cell in row] for row in csv.reader(read_lines(self.path, newline="")))
        rows = (row for row in cells if any(row))
        self.columns = next(rows, [])[1:]
        for number, row in enumerate(rows, start=2):
            if len(row) != len(self.columns) + 1:
                raise InputError(f"{self.path} line {number}: {len(row)} cells, the header has {len(self.columns) + 1}")
            if row[0] in self._rows:
                raise InputError(f"{self.path} line {number}: '{row[0]}' is there twice; keep one row each")
            self._rows[row[0]] = row[1:]

    def values(self, column: str, keys: Sequence[str]) -> np.ndarray:
        """str (len(keys),): the column's value of each image, "" where the file has none.

        Rows are found by an image's name, with or without suffix, or its number in a stored set, else by the folder
        (the person). Raises InputError for an unknown column, and when no image has a value.
        """
        if column not in self.columns:
            raise InputError(f"{self.path} has no column '{column}'; it has {', '.join(self.columns)}")
        place = self.columns.index(column)
        values = np.array([self._value(key, place) for key in keys])
        if not np.any(values != ""):
            raise InputError(
                f"{self.path}: none of the {len(keys)} images has a value in '{column}'; name images as '{keys[0]}', "
                f"or people as '{PurePosixPath(keys[0]).parent.name}'"
            )
        return values

    def numbers(self, column: str, keys: Sequence[str]) -> np.ndarray:
        """float64 (len(keys),). Raises InputError naming and counting images without a number."""
        values = self.values(column, keys)
        found = np.array([_number(value) for value in values])
        if bad := np.flatnonzero(np.isnan(found)).tolist():
            raise InputError(
                f"{self.path}: {len(bad)} of {len(keys)} images have no number in '{column}' (first: {keys[bad[0]]}, "
                f"'{values[bad[0]]}'); quality needs one for every image"
            )
        return found

    def groups(self, column: str, keys: Sequence[str]) -> np.ndarray:
        """str (len(keys),): as `values`; numbers of many values become quarters, such as "23 to 31"."""
        values = self.values(column, keys)
        known = values != ""
        numbers = np.array([_number(value) for value in values])
        if len(np.unique(values[known])) <= MOST_GROUPS or np.any(np.isnan(numbers[known])):
            return values
        edges = np.unique(np.quantile(numbers[known], [0, 0.25, 0.5, 0.75, 1]))
        quarter = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
        names = np.array([f"{n}: {a:g} to {b:g}" for n, (a, b) in enumerate(itertools.pairwise(edges), start=1)])
        return np.where(known, names[quarter], "")

    def _value(self, key: str, place: int) -> str:
        path = PurePosixPath(key)
        for name in (key, str(path.with_suffix("")), path.name, key.rpartition(":")[2], path.parent.name):
            if name in self._rows:
                return self._rows[name][place].strip()
        return ""


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
