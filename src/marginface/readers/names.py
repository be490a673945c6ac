"""Millions of file names in two arrays, not a list of objects. Used by readers that remember paths."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from marginface.untrusted import read_lines

CLASSES = "classes.txt"
CONTROLS = dict.fromkeys([*range(32), 127], " ")


class PackedNames(Sequence[str]):
    """An unchangeable list of strings: one block of UTF-8 and where each string ends.

    A list of 6 million short paths takes about 450 MB and is copied page by page into every forked
    worker, because counting references writes into it; this takes the bytes of the names plus 8 each.
    """

    def __init__(self, names: Iterable[str]) -> None:
        text = bytearray()
        ends = [0]
        for name in names:
            text += name.encode("utf-8", "surrogateescape")
            ends.append(len(text))
        self._text = bytes(text)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        part = self._text[self._ends[position] : self._ends[position + 1]]
        return part.decode("utf-8", "surrogateescape")


def in_order(names: Iterable[str]) -> list[str]:
    """What files call identities, in the order of their labels: by number if all are whole numbers, else as text."""
    found = list(names)
    if all(name.isascii() and name.isdecimal() and len(name) < 20 for name in found):
        return sorted(found, key=lambda name: (int(name), name))
    return sorted(found)


def number_labels(appeared: Iterable[str], places: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Labels without gaps, int64 (N,), and what the files call them.

    appeared: the names, each once. places: int64 (N,), which of them each image has.
    """
    found = list(appeared)
    names = in_order(found)
    label = {name: number for number, name in enumerate(names)}
    return np.array([label[name] for name in found], dtype=np.int64)[places], names


def write_names(folder: Path, names: Sequence[str]) -> None:
    """Write CLASSES, what a set calls its identities, for formats that only number them."""
    lines = (f"{name.translate(CONTROLS)}\n".encode("utf-8", "surrogateescape") for name in names)
    (folder / CLASSES).write_bytes(b"".join(lines))


def read_names(folder: Path, count: int) -> PackedNames | None:
    """The names in CLASSES; None if the file is missing or has not `count` lines, and so is of another set."""
    if not (folder / CLASSES).is_file():
        return None
    return names_in(read_lines(folder / CLASSES, errors="surrogateescape"), count)


def names_in(lines: Iterable[str], count: int) -> PackedNames | None:
    """As `read_names`, of the lines of the file."""
    names = PackedNames(line.rstrip("\n") for line in lines)
    return names if len(names) == count else None


def spelt(text: str) -> str:
    """A text from JSON as UTF-8 can spell it: halves of surrogate pairs, which JSON may name, become "?"."""
    return text.encode("utf-8", "replace").decode()
