"""Millions of file names in two arrays, not a list of objects. Used by readers that remember paths."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


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


def spelt(text: str) -> str:
    """A text from JSON as UTF-8 can spell it: halves of surrogate pairs, which JSON may name, become "?"."""
    return text.encode("utf-8", "replace").decode()
