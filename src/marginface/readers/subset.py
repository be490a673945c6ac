"""Part of a set: index files as AdaFace has them, opened by `open_reader` and understood by `convert`."""

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import Reader, Record
from marginface.readers.names import PackedNames
from marginface.untrusted import free_memory, read_bytes, read_head

FEWEST = 5  # images of an identity that AdaFace keeps
TOGETHER = 256
NUMBERED = re.compile(r"\d{9}(?=\.|$)", re.ASCII)
LONGEST_KEY = 20  # digits
MEMORY = 32  # bytes that a byte of an index file may take


class SubsetReader:
    """Some rows of another reader; identities left without images leave no gaps between the labels.

    rows: int64 (N,), in the order wanted. min_images: leave out identities with fewer of them. `class_names` keeps what
    the other reader calls the identities, or how it numbers them.
    """

    def __init__(self, reader: Reader, rows: np.ndarray, min_images: int = 1) -> None:
        written, labels, counts = np.unique(reader.labels[rows], return_inverse=True, return_counts=True)
        kept = counts >= max(min_images, 1)
        if kept.sum() < 2:
            raise InputError(f"fewer than two identities have {min_images} images in the subset; training needs two.")
        self._reader, self._rows = reader, rows[kept[labels]]
        self.labels = (np.cumsum(kept) - 1)[labels[kept[labels]]]
        self.num_classes = int(kept.sum())
        names = getattr(reader, "class_names", None)
        self.class_names = PackedNames(
            str(label) if names is None else names[label] for label in written[kept].tolist()
        )
        self.left_out: Mapping[str, int] = getattr(reader, "left_out", {})
        self.path, self.property_classes = (getattr(reader, name, None) for name in ("path", "property_classes"))
        self.without_images: list[str] = []

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int]) -> list[Record]:
        records = self._reader.read([int(self._rows[index]) for index in indices])
        return [replace(one, label=int(self.labels[i])) for one, i in zip(records, indices, strict=True)]


def close_gaps(reader: Reader, spec: str) -> Reader:
    """The set with labels 0 ... n - 1 of which each has images: the reader itself where it has no gaps.

    `without_images` of what it returns names the identities that the set declares and has no images of.
    Raises InputError for a set of one identity.
    """
    labels, classes = reader.labels, reader.num_classes
    few = classes <= 1000 + 4 * len(labels)  # else the number is none of classes, or a lie
    used = np.flatnonzero(np.bincount(labels)) if few else np.unique(labels)
    if len(used) < 2:
        names = getattr(reader, "class_names", None)
        name = used[0] if names is None else names[used[0]]
        raise InputError(f"{spec}: holds one identity only ({name!s:.200}); training needs two or more.")
    if len(used) == classes:
        return reader
    closed = SubsetReader(reader, np.arange(len(reader)))
    if few and (getattr(reader, "declared_classes", None) or 0) > used[-1]:
        names = getattr(reader, "class_names", None)
        missing = np.setdiff1d(np.arange(classes), used).tolist()
        closed.without_images = [str(label) if names is None else names[label] for label in missing]
    return closed


def is_index(path: Path) -> bool:
    """Whether the file holds whole numbers with commas between them, and nothing else in its first 4 KB."""
    return re.fullmatch(r"\s*\d+\s*,[\d,\s]*", read_head(path, 4096), re.ASCII) is not None


def index_rows(path: Path, reader: Reader) -> np.ndarray:
    """The rows of `reader` that an index file names, ascending, int64.

    It counts images in the order of an image folder, whatever the format: "0", "1", "10", ... and images likewise.
    Raises InputError if it counts too far.
    """
    text = read_bytes(path, free_memory() // MEMORY).removeprefix(codecs.BOM_UTF8).replace(b",", b" ")
    digits = np.frombuffer(text, np.uint8) > ord(" ")
    ends = np.flatnonzero(np.diff(digits, prepend=False, append=False))
    if not len(ends) or (ends[1::2] - ends[::2]).max() > 15 or text.translate(None, b"0123456789 \t\r\n\v\f"):
        raise InputError(f"{path}: is no list of numbers with commas between them.")
    numbers = np.unique(np.fromstring(text.decode("ascii"), dtype=np.int64, sep=" "))
    if numbers[-1] >= len(reader):
        raise InputError(f"{path}: counts to image {numbers[-1]}, but the set has {len(reader)}.")
    return np.sort(_folder_order(reader)[numbers])


def _folder_order(reader: Reader) -> np.ndarray:
    names = getattr(reader, "class_names", None)
    labels = reader.labels.tolist()
    places = [
        _place(str(label) if names is None else names[label], label, key)
        for label, key in zip(labels, keys(reader), strict=True)
    ]
    return np.array(sorted(range(len(places)), key=places.__getitem__), dtype=np.int64)


def _place(name: str, label: int, key: str) -> tuple[str, str, str]:
    """(folder, subfolder, file) of an image as AdaFace unpacks a record, `imgs/<label>/<key>.jpg` without zeros.

    Folders that `convert` writes have zeros before their numbers, which are left out. A record of people with names
    does not come from AdaFace: its images stay in the order of their keys.
    """
    padded = f"{label:07d}"
    ours = key.startswith(f"{padded}/")
    folder = str(label) if name == padded else name
    inside, _, file = key.removeprefix(f"{padded if ours else name}/").rpartition("/")
    if ours and (number := NUMBERED.match(file)):
        file = str(int(number[0])) + file[number.end() :]
    elif file.isdecimal() and not folder.isdecimal():
        file = file.zfill(LONGEST_KEY)
    return folder, inside, file


def keys(reader: Reader) -> Iterator[str]:
    """The key of every record."""
    for start in range(0, len(reader), TOGETHER):
        yield from (record.key for record in reader.read(range(start, min(start + TOGETHER, len(reader)))))
