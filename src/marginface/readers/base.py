"""What every reader is: random access to records of one face data set. Leaf: knows nothing of decoding."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np

from marginface.errors import InputError
from marginface.untrusted import free_memory

USUAL_SIZE = 1 << 28
"""Bytes that the images of a batch may take without asking whether there is so much memory."""
MOST_CLASSES = 1 << 24
"""Identities of a set: four times the largest one, and what float32, in which some formats count, can tell apart."""


@dataclass(slots=True)  # not frozen: that takes longer to make than a record takes to read
class Record:
    """One face of a data set, as it lies there. Nobody changes one.

    image: encoded bytes (JPEG, PNG ...), or RGB uint8 (H, W, 3) where the set is not stored encoded.
    label: class index in [0, num_classes).
    key: names the record within its set, for people and messages: a path, a RecordIO key, ...
    points: float32 (5, 2), x and y in pixels of `image`: left eye, right eye, nose, left and right mouth
        corner as seen in the image; None where the set has none.
    """

    image: bytes | np.ndarray
    label: int
    key: str
    points: np.ndarray | None = None


class Reader(Protocol):
    """Random access to a labelled set. Safe to share between threads, and between processes after a fork."""

    @property
    def labels(self) -> np.ndarray:
        """int64 (len,), each in [0, num_classes). May cost a pass over the files the first time."""
        ...

    @property
    def num_classes(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Record]:
        """The records at `indices`, in that order. Raises InputError naming file, record and byte offset."""
        ...


def read_each(indices: Iterable[int], read_one: Callable[[int], Record]) -> list[Record]:
    """The records at `indices`, one after the other, for `Reader.read`.

    Raises InputError where they take more than half of the free memory together: a small file can name one large image
    again and again.
    """
    records, size = [], 0
    for index in indices:
        record = read_one(int(index))
        records.append(record)
        size += record.image.nbytes if isinstance(record.image, np.ndarray) else len(record.image)
        if size > USUAL_SIZE and size > free_memory() // 2:
            raise InputError(f"{record.key}: the {len(records)} images read with it take {size:,} bytes; take fewer.")
    return records


class LazyRecords(Sequence[Record]):
    """`count` records, each read by `at(position)` only when it is asked for. Positions are 0 to count - 1."""

    def __init__(self, count: int, at: Callable[[int], Record]) -> None:
        self._count, self._at = count, at

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._at(range(len(self))[index])


@dataclass(frozen=True)
class VerificationSet:
    """Pairs of faces in the order that the format stores them: images 2k and 2k + 1 form pair k.

    images: records, decoded only when asked for; their label is the number of the pair.
    issame: bool (P,), whether a pair shows one person.
    name: what people call the set, from its file name.
    """

    images: Sequence[Record]
    issame: np.ndarray
    name: str
