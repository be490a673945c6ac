"""Files as readers take them: mapped, shared by threads and by processes after a fork; or read whole."""

import mmap
import tokenize
from pathlib import Path

from marginface.errors import InputError
from marginface.untrusted import LARGEST_IMAGE, open_file, read_bytes

NPY_ERRORS = (
    *(ValueError, TypeError, OverflowError, OSError, EOFError, MemoryError),
    *(SyntaxError, tokenize.TokenError, RecursionError),
)
"""What numpy.load raises for damaged `.npy` files: their header is an expression of Python, though never run."""


def map_file(path: Path) -> mmap.mmap:
    """Raises InputError if the file is empty or cannot be opened."""
    try:
        with open_file(path) as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except InputError:
        raise  # is a ValueError, and says already what is wrong
    except ValueError as error:  # nothing to map
        raise InputError(f"{path}: the file is empty.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}.") from error


def read_file(path: str) -> bytes:
    """An encoded image. Raises OSError, and InputError for what is no file or too large for an image."""
    return read_bytes(path, LARGEST_IMAGE)
