"""LMDB sets: keys 0, 1, ... of (encoded image, label) in msgpack, as HaiyuWu's trainer has them. For `open_reader`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from marginface.errors import InputError
from marginface.optional_imports import load_library
from marginface.readers import sidecar
from marginface.readers.base import MOST_CLASSES, Record, read_each
from marginface.readers.containment import Bounds
from marginface.readers.lmdb_tree import MAGIC, NODE, Tree
from marginface.readers.mapped import map_file
from marginface.untrusted import read_start

LONGEST_NUMBER = 9  # bytes of a whole number in msgpack
SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""How many bytes tell the length of bytes or text, by what these start with in msgpack."""


class LMDBReader:
    """Reads `path`, an LMDB file or the folder of its data.mdb; a key is the LMDB key.

    Labels lie with the images: the first use of `labels` reads the whole set once and saves them beside it.

    Raises InputError if the file is damaged or no set of faces.
    """

    def __init__(self, path: str | os.PathLike[str], allow_outside: bool = False) -> None:
        self.path = lmdb_file(Path(path)) or Path(path)
        if self.path != Path(path):
            Bounds(path, allow_outside=allow_outside).check(self.path)
        self._unpackb = load_library("msgpack", f"{self.path}: reading this format").unpackb
        data = map_file(self.path)
        try:
            self._tree = Tree(data)
        except ValueError as error:
            raise InputError(f"{self.path}: not an LMDB file that can be read: {error}.") from error
        length, classes = self._number(b"__len__"), self._number(b"__classnum__")
        most = len(data) // NODE.size  # keys that the file has room for
        if length is None or not 0 < length <= most or self._get(str(length - 1).encode()) is None:
            raise InputError(f"{self.path}: should have the number of its images as __len__, and keys 0, 1, ...")
        self._length, self._size = length, len(data)
        self.declared_classes = classes if classes is not None and 0 < classes <= MOST_CLASSES else None
        self._labels: np.ndarray | None = None

    def __len__(self) -> int:
        return self._length

    @property
    def num_classes(self) -> int:
        return max(self.declared_classes or 0, int(self.labels.max()) + 1)

    @property
    def labels(self) -> np.ndarray:
        if self._labels is None:
            self._labels = self._saved_labels()
        if self._labels is None:
            self._labels = self._read_labels()
            sidecar.save_labels(self.path, self._labels)
        return self._labels

    def read(self, indices: Sequence[int]) -> list[Record]:
        return read_each(indices, self._read_one)

    def _read_one(self, index: int) -> Record:
        content = self._get(str(index).encode())
        parts = None if content is None else _split(content)
        if parts is None:
            self._refuse(index, "it is not an image and a label")
        image, number = parts
        label = self._unpack(number)
        if label is None or not 0 <= label < 1 << 63:
            self._refuse(index, f"its label {label!r:.40} is no whole number from 0 on")
        return Record(image, label, str(index))

    def _read_labels(self) -> np.ndarray:
        labels, size = np.empty(len(self), np.int64), 0
        for index in range(len(self)):
            record = self._read_one(index)
            labels[index] = record.label
            size += len(record.image)
            if size > self._size:
                self._refuse(index, "its image is that of other records too")
        return labels

    def _get(self, key: bytes) -> bytes | None:
        try:
            return self._tree.get(key)
        except ValueError as error:
            raise InputError(f"{self.path}: record {key.decode()} is damaged: {error}.") from error

    def _number(self, key: bytes) -> int | None:
        value = self._get(key)
        return None if value is None else self._unpack(value)

    def _unpack(self, number: bytes) -> int | None:
        """A whole number in msgpack; None for anything else, which could unpack to many times its bytes."""
        try:
            value = self._unpackb(number[: LONGEST_NUMBER + 1])
        except (ValueError, TypeError):
            return None
        return value if isinstance(value, int) else None

    def _refuse(self, index: int, reason: str) -> NoReturn:
        raise InputError(f"{self.path}: record {index} is damaged: {reason}.")

    def _saved_labels(self) -> np.ndarray | None:
        labels = sidecar.load_labels(self.path, len(self))
        sample = np.unique(np.linspace(0, len(self) - 1, 100).astype(np.int64)).tolist()
        if labels is None or [self._read_one(index).label for index in sample] != labels[sample].tolist():
            return None
        return labels


def _split(content: bytes) -> tuple[bytes, bytes] | None:
    """The bytes of an image and what follows them, from a list of two in msgpack; None for anything else."""
    if len(content) < 2 or content[0] != 0x92:
        return None
    kind, start = content[1], 2
    if 0xA0 <= kind <= 0xBF:
        length = kind & 0x1F
    elif kind in SIZES:
        start += SIZES[kind]
        length = int.from_bytes(content[2:start], "big")
    else:
        return None
    return (content[start : start + length], content[start + length :]) if start + length < len(content) else None


def lmdb_file(path: Path) -> Path | None:
    """The file of the environment at `path`, if there is one."""
    file = path / "data.mdb" if path.is_dir() else path
    if not file.is_file():
        return None
    return file if read_start(file, 20)[16:] == MAGIC.to_bytes(4, "little") else None
