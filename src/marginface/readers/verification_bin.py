"""InsightFace's verification files: a pickled (images, issame), plain or as `.xz`. Opened by `open_verification`."""

import lzma
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.readers import safe_pickle
from marginface.readers.base import Record, VerificationSet

XZ = b"\xfd7zXZ\x00"
# JPEG and PNG do not shrink and photographs not by much: what unpacks to more than this is a bomb
XZ_GROWTH = 20
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(lp", b"((l")


def is_bin(path: Path) -> bool:
    """Whether the file starts like a pickle of lists or like `.xz`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(6).startswith((XZ, *PICKLES))


def read_bin(path: Path) -> VerificationSet:
    """Images are encoded bytes, uint8 arrays of encoded bytes, or RGB uint8 (H, W, 3); from Python 2 or 3.

    The pickle is read by `safe_pickle`, which runs nothing. Raises InputError if it asks for more, or is damaged.
    """
    try:
        data = path.read_bytes()
        content = safe_pickle.load(_unpacked(data) if data.startswith(XZ) else data)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}.") from error
    except (ValueError, lzma.LZMAError) as error:
        raise InputError(f"{path}: not a verification set that can be read: {error}.") from error
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise InputError(f"{path}: does not hold two things, a list of images and a list of issame.")
    issame = _issame(path, content[1])
    if not isinstance(content[0], list | tuple | np.ndarray) or len(content[0]) != 2 * len(issame):
        raise InputError(f"{path}: does not hold two images for each of its {len(issame)} pairs.")
    images = [Record(_image(path, i, image), i // 2, f"{path.name}:{i}") for i, image in enumerate(content[0])]
    return VerificationSet(images, issame, path.stem)


def _unpacked(data: bytes) -> bytes:
    limit = (1 << 20) + XZ_GROWTH * len(data)
    unpacker = lzma.LZMADecompressor(memlimit=1 << 30)
    unpacked = unpacker.decompress(data, max_length=limit)
    if not unpacker.eof:
        raise ValueError(
            f"it unpacks to more than {limit:,} bytes" if len(unpacked) >= limit else "the .xz file is cut short"
        )
    return unpacked


def _issame(path: Path, values: Any) -> np.ndarray:
    if isinstance(values, list | tuple | np.ndarray) and len(values):
        flat = [value.item() if isinstance(value, np.generic) else value for value in values]
        if all(isinstance(value, bool | int | float) and value in (0, 1) for value in flat):
            return np.array(flat, dtype=bool)
    raise InputError(f"{path}: issame, its second part, is not a list of true and false.")


def _image(path: Path, number: int, image: Any) -> bytes | np.ndarray:
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (1, 2):
        return image.tobytes()  # of cv2.imencode, which once gave (n, 1)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return image
    raise InputError(f"{path}: image {number} is neither bytes nor a uint8 array.")
