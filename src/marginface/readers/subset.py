"""Part of a set: index files as AdaFace has them, opened by `open_reader` and understood by `convert`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import Reader, Record
from marginface.untrusted import free_memory, read_bytes, read_start

FEWEST = 5  # images of an identity that AdaFace keeps
TOGETHER = 256
MEMORY = 32  # bytes that a byte of an index file may take


class SubsetReader:
    """Some rows of another reader; identities left without images leave no gaps between the labels.

    rows: int64 (N,), in the order wanted. min_images: leave out identities with fewer of them.
    """

    def __init__(self, reader: Reader, rows: np.ndarray, min_images: int = 1) -> None:
        labels = reader.labels[rows]
        kept = np.bincount(labels, minlength=reader.num_classes) >= max(min_images, 1)
        if kept.sum() < 2:
            raise InputError(f"fewer than two identities have {min_images} images in the subset; training needs two.")
        self._reader, self._rows = reader, rows[kept[labels]]
        self.labels = (np.cumsum(kept) - 1)[reader.labels[self._rows]]
        self.num_classes = int(kept.sum())
        self.left_out = getattr(reader, "left_out", {})
        names = getattr(reader, "class_names", None)
        self.class_names = None if names is None else [names[label] for label in np.flatnonzero(kept)]

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int]) -> list[Record]:
        records = self._reader.read([int(self._rows[index]) for index in indices])
        return [replace(one, label=int(self.labels[i])) for one, i in zip(records, indices, strict=True)]


def is_index(path: Path) -> bool:
    """Whether the file holds whole numbers with commas between them, and nothing else in its first 4 KB."""
    return re.fullmatch(rb"\s*\d+\s*,[\d,\s]*", read_start(path, 4096)) is not None


def index_rows(path: Path, reader: Reader) -> np.ndarray:
    """The rows of `reader` that an index file names, ascending, int64.

    It counts images in the order of an image folder, whatever the format: "0", "1", "10", ... and images likewise.
    Raises InputError if it counts too far.
    """
    text = read_bytes(path, free_memory() // MEMORY).replace(b",", b" ")
    digits = np.frombuffer(text, np.uint8) > ord(" ")
    ends = np.flatnonzero(np.diff(digits, prepend=False, append=False))
    if not len(ends) or (ends[1::2] - ends[::2]).max() > 15 or text.translate(None, b"0123456789 \t\r\n\v\f"):
        raise InputError(f"{path}: is no list of numbers with commas between them.")
    numbers = np.unique(np.fromstring(text.decode("ascii"), dtype=np.int64, sep=" "))
    if numbers[-1] >= len(reader):
        raise InputError(f"{path}: counts to image {numbers[-1]}, but the set has {len(reader)}.")
    return np.sort(_folder_order(reader)[numbers])


def _folder_order(reader: Reader) -> np.ndarray:
    if getattr(reader, "class_names", None) is not None:
        return np.arange(len(reader))
    paths = [(str(label), key) for label, key in zip(reader.labels, keys(reader), strict=True)]
    return np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64)


def keys(reader: Reader) -> Iterator[str]:
    """The key of every record."""
    for start in range(0, len(reader), TOGETHER):
        yield from (record.key for record in reader.read(range(start, min(start + TOGETHER, len(reader)))))
