"""Files as readers take them: mapped, shared by threads and by processes after a fork; or read whole, quickly."""

import mmap
import os
import tokenize
import zipfile
import zlib
from pathlib import Path

from marginface.errors import InputError

AT_FIRST = 1 << 16  # bytes; more than nearly all faces
NPY_ERRORS = (
    *(ValueError, TypeError, OverflowError, OSError, EOFError, MemoryError),
    *(SyntaxError, tokenize.TokenError, RecursionError),
)
"""What numpy.load raises for damaged `.npy` files: their header is an expression of Python, though never run."""
NPZ_ERRORS = (*NPY_ERRORS, KeyError, AttributeError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
"""What numpy.load and its members raise for damaged `.npz` files, which are zips of `.npy` files."""


def map_file(path: Path) -> mmap.mmap:
    """Raises InputError if the file is empty or cannot be opened."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # nothing to map
        raise InputError(f"{path}: the file is empty.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}.") from error


def read_file(path: str) -> bytes:
    """What `Path.read_bytes` gives in a third of the time, which counts where every image is a file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        parts = [os.read(descriptor, AT_FIRST)]
        while len(parts[-1]) == AT_FIRST:  # a file gives less only at its end
            parts.append(os.read(descriptor, AT_FIRST))
    finally:
        os.close(descriptor)
    return parts[0] if len(parts) == 1 else b"".join(parts)
