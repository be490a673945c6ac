"""InsightFace's verification files: a pickled (images, issame), plain or as `.xz`. Opened by `open_verification`."""

import lzma
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.readers import safe_pickle
from marginface.readers.base import LazyRecords, Record, VerificationSet
from marginface.readers.mapped import map_file
from marginface.untrusted import free_memory, open_file

XZ = b"\xfd7zXZ\x00"
# JPEG and PNG do not shrink and photographs not by much: what unpacks to more than this is a bomb
XZ_GROWTH = 20
XZ_MEMORY = 1 << 28  # bytes of the unpacker, four times what the strongest preset takes
MOST_REPEATS = 8  # of an image that several pairs share
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(lp", b"((l")


def is_bin(path: Path) -> bool:
    """Whether the file starts like a pickle of lists or like `.xz`."""
    if not path.is_file():
        return False
    with open_file(path) as file:
        return file.read(6).startswith((XZ, *PICKLES))


def read_bin(path: Path) -> VerificationSet:
    """Images are encoded bytes, uint8 arrays of encoded bytes, or RGB uint8 (H, W, 3); from Python 2 or 3.

    The pickle is read by `safe_pickle`, which runs nothing. Raises InputError if it asks for more, or is damaged.
    """
    try:
        data = map_file(path)
        content = safe_pickle.load(_unpacked(data) if data[:6] == XZ else data)
    except InputError:
        raise  # is a ValueError, and says already what is wrong
    except (ValueError, lzma.LZMAError) as error:
        raise InputError(f"{path}: not a verification set that can be read: {error}.") from error
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise InputError(f"{path}: does not hold two things, a list of images and a list of issame.")
    issame = _issame(path, content[1])
    if not _is_sequence(content[0]) or len(content[0]) != 2 * len(issame):
        raise InputError(f"{path}: does not hold two images for each of its {len(issame)} pairs.")
    images = list(content[0])
    size = sum(_stored_bytes(path, i, image) for i, image in enumerate(images))
    if size > MOST_REPEATS * len(data) * (XZ_GROWTH if data[:6] == XZ else 1):
        raise InputError(f"{path}: its {len(images):,} images are the same few over and over; write the set again.")

    def record(position: int) -> Record:
        image = images[position]
        encoded = image.tobytes() if isinstance(image, np.ndarray) and image.ndim < 3 else image
        return Record(encoded, position // 2, f"{path.name}:{position}")

    return VerificationSet(LazyRecords(len(images), record), issame, path.stem)


def _unpacked(data: mmap.mmap) -> bytes:
    limit = min((1 << 20) + XZ_GROWTH * len(data), free_memory() // 4)
    unpacker = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
    unpacked = unpacker.decompress(data, max_length=limit)
    if not unpacker.eof:
        raise ValueError(
            f"it unpacks to more than {limit:,} bytes" if len(unpacked) >= limit else "the .xz file is cut short"
        )
    return unpacked


def _issame(path: Path, values: Any) -> np.ndarray:
    if _is_sequence(values) and len(values):
        flat = [value.item() if isinstance(value, np.generic) else value for value in values]
        if all(isinstance(value, bool | int | float) and value in (0, 1) for value in flat):
            return np.array(flat, dtype=bool)
    raise InputError(f"{path}: issame, its second part, is not a list of true and false.")


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _stored_bytes(path: Path, number: int, image: Any) -> int:
    """The size of an image as stored: encoded bytes, also as cv2.imencode gives them, (n,) or (n, 1), or pixels."""
    if isinstance(image, bytes):
        return len(image)
    pixels = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (1, 2, 3)
    if pixels and image.shape[2:] in ((), (3,)):
        return int(image.size)
    raise InputError(f"{path}: image {number} is neither bytes nor a uint8 array.")
