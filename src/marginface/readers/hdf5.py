"""HDF5 files with one group for each identity, read with h5py. Opened by `open_reader`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.optional_imports import load_library
from marginface.readers.base import Record, read_each
from marginface.readers.hdf5_bounds import check_data_set, image_names
from marginface.readers.names import PackedNames, in_order
from marginface.untrusted import read_start

SIGNATURE = b"\x89HDF\r\n\x1a\n"


class HDF5Reader:
    """Reads `/<identity>/.../<image>`: data sets of encoded bytes, or of RGB uint8 (H, W, 3).

    Identities are in numeric order if all are numbers, else alphabetically; a key is the path in the file. Soft and
    external links are not followed.

    Raises InputError if the file is damaged or has no identities, and for an image that other files
    hold (external storage, virtual data sets), unless `allow_outside`.
    """

    def __init__(self, path: str | os.PathLike[str], allow_outside: bool = False) -> None:
        self.path, self._allow_outside = Path(path), allow_outside
        self._library = load_library("h5py", f"{self.path}: reading this format")
        self._process = os.getpid()
        self._file = self._open()
        try:
            names = image_names(self._file, self._library)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise InputError(f"{self.path}: the groups of the file are damaged: {error}.") from error
        identities = in_order({name.partition("/")[0] for name in names})
        if not identities:
            raise InputError(f"{self.path}: has no groups with images; expected one for each person.")
        self.class_names: Sequence[str] = identities
        self.num_classes = len(identities)
        number = {name: label for label, name in enumerate(identities)}
        names.sort(key=lambda name: (number[name.partition("/")[0]], name))
        self.labels = np.array([number[name.partition("/")[0]] for name in names], dtype=np.int64)
        self._names = PackedNames(names)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[Record]:
        if self._process != os.getpid():  # a forked process must not share the parent's place in the file
            self._process, self._file = os.getpid(), self._open()
        return read_each(indices, self._read_one)

    def _read_one(self, index: int) -> Record:
        key = self._names[index]
        try:
            stored = self._file[key]
            if not self._allow_outside and (elsewhere := _elsewhere(stored)):
                raise InputError(
                    f"{self.path}: record {index}, {key}, is kept in {elsewhere}; copy the set into one file with"
                    f" h5repack, or read it with --allow-outside."
                )
            check_data_set(stored)
            image = _image(stored[()])
        except InputError:
            raise  # is a ValueError, and says already what is wrong
        except (ValueError, OSError, RuntimeError, KeyError, TypeError, MemoryError) as error:
            raise InputError(f"{self.path}: record {index}, {key}, is damaged: {error}.") from error
        return Record(image, int(self.labels[index]), key)

    def _open(self) -> Any:
        try:
            return self._library.File(self.path, "r")
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{self.path}: not an HDF5 file that can be read: {error}.") from error


def is_hdf5(path: Path) -> bool:
    """Whether the file starts as HDF5 does."""
    return read_start(path, len(SIGNATURE)) == SIGNATURE


def _elsewhere(stored: Any) -> str:
    """Where the bytes of a data set are kept, if not in itself; else ""."""
    if stored.is_virtual:
        parts = stored.id.get_create_plist()
        files = [parts.get_virtual_filename(0)] if parts.get_virtual_count() else []
        return ", ".join(["other data sets", *files])
    return f"another file, {stored.external[0][0]}" if stored.external else ""


def _image(stored: Any) -> bytes | np.ndarray:
    """Encoded bytes are kept as uint8 (n,), as an opaque value, or as bytes."""
    if isinstance(stored, bytes):
        return stored
    if isinstance(stored, np.void):
        return stored.tobytes()
    if isinstance(stored, np.ndarray) and stored.dtype == np.uint8 and stored.ndim in (1, 3):
        return stored.tobytes() if stored.ndim == 1 else stored
    raise ValueError("it is neither encoded bytes nor RGB uint8 (H, W, 3)")
