"""LMDB sets: keys 0, 1, ... of (encoded image, label) in msgpack, as HaiyuWu's trainer has them. For `open_reader`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from marginface.errors import InputError
from marginface.readers import sidecar
from marginface.readers.base import Record
from marginface.readers.containment import Bounds
from marginface.readers.extras import load_extra
from marginface.readers.lmdb_tree import MAGIC, Tree
from marginface.readers.mapped import map_file

LARGEST_CLASS = 1 << 32


class LMDBReader:
    """Reads `path`, an LMDB file or the folder of its data.mdb; a key is the LMDB key.

    Labels lie with the images: the first use of `labels` reads the whole set once and saves them beside it.

    Raises InputError if the file is damaged or no set of faces.
    """

    def __init__(self, path: str | os.PathLike[str], allow_outside: bool = False) -> None:
        self.path = lmdb_file(Path(path)) or Path(path)
        if self.path != Path(path):
            Bounds(path, allow_outside=allow_outside).check(self.path)
        self._unpackb = load_extra("msgpack", "lmdb", self.path).unpackb
        try:
            self._tree = Tree(map_file(self.path))
        except ValueError as error:
            raise InputError(f"{self.path}: not an LMDB file that can be read: {error}.") from error
        length, classes = self._get(b"__len__"), self._get(b"__classnum__")
        if not isinstance(length, int) or not 0 < length < LARGEST_CLASS or self._get(str(length - 1).encode()) is None:
            raise InputError(f"{self.path}: should have the number of its images as __len__, and keys 0, 1, ...")
        self._length = length
        self._declared_classes = classes if isinstance(classes, int) and 0 < classes < LARGEST_CLASS else None
        self._labels: np.ndarray | None = None

    def __len__(self) -> int:
        return self._length

    @property
    def num_classes(self) -> int:
        return self._declared_classes or int(self.labels.max()) + 1

    @property
    def labels(self) -> np.ndarray:
        if self._labels is None:
            self._labels = self._saved_labels()
        if self._labels is None:
            found = np.fromiter((self._read_one(index).label for index in range(len(self))), np.int64, len(self))
            sidecar.save_labels(self.path, found)
            self._labels = found
        return self._labels

    def read(self, indices: Sequence[int]) -> list[Record]:
        return [self._read_one(int(index)) for index in indices]

    def _read_one(self, index: int) -> Record:
        content = self._get(str(index).encode())
        if not isinstance(content, list) or len(content) != 2 or not isinstance(content[0], bytes):
            self._refuse(index, "it is not an image and a label")
        image, label = content
        if not isinstance(label, int) or not 0 <= label < (self._declared_classes or LARGEST_CLASS):
            self._refuse(index, f"its label {label!r:.40} is no class of those declared")
        return Record(image, label, str(index))

    def _get(self, key: bytes) -> Any:
        try:
            value = self._tree.get(key)
            return None if value is None else self._unpackb(value, raw=True)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{self.path}: record {key.decode()} is damaged: {error}.") from error

    def _refuse(self, index: int, reason: str) -> NoReturn:
        raise InputError(f"{self.path}: record {index} is damaged: {reason}.")

    def _saved_labels(self) -> np.ndarray | None:
        labels = sidecar.load_labels(self.path, len(self))
        sample = np.unique(np.linspace(0, len(self) - 1, 100).astype(np.int64)).tolist()
        if labels is None or [self._read_one(index).label for index in sample] != labels[sample].tolist():
            return None
        return labels


def lmdb_file(path: Path) -> Path | None:
    """The file of the environment at `path`, if there is one."""
    file = path / "data.mdb" if path.is_dir() else path
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return file if stream.read(20)[16:] == MAGIC.to_bytes(4, "little") else None
