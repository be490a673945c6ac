"""Verification sets kept as one big array: AdaFace's memfiles, and `.npy` + issame.txt. For `open_verification`."""

import math
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import LazyRecords, Record, VerificationSet
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import data_files
from marginface.readers.numpy_files import read_npy
from marginface.untrusted import LARGEST_IMAGE, free_memory, read_json, read_text

MEMORY = 32  # bytes that a byte of issame.txt may take


def _record(array: np.ndarray, position: int, name: str) -> Record:
    """An RGB uint8 record from a mapped array of (N, 3, H, W) or (N, H, W, 3).

    float32 arrays are AdaFace's: BGR, normalised to [-1, 1]; uint8 arrays are RGB.
    """
    image = np.array(array[position])
    if image.shape[0] == 3:
        image = image.transpose(1, 2, 0)
    if image.dtype == np.float32:
        image = np.clip(np.rint(image[..., ::-1] * 127.5 + 127.5), 0, 255).astype(np.uint8)
    return Record(np.ascontiguousarray(image), position // 2, f"{name}:{position}")


def is_memfile(path: Path) -> bool:
    """Whether `path` is a mem_file.dat, or a folder of AdaFace's with one below it."""
    return _memfile(path) is not None


def read_memfile(path: Path, bounds: Bounds) -> VerificationSet:
    """`<set>/memfile/mem_file.dat` with its `.conf`, and `<set>_list.npy` beside `<set>` for issame."""
    data = _memfile(path)
    assert data is not None
    folder = data.parent.parent if data.parent.name == "memfile" else data.parent
    listed = folder.with_name(f"{folder.name}_list.npy")
    if not _conf(data).is_file():
        raise InputError(f"{_conf(data)}: missing; it says how many images of which size mem_file.dat holds.")
    bounds.check_all({data, _conf(data)} - {path})
    Bounds(listed, allow_outside=bounds.allow_outside).check(listed)
    shape = _configured_shape(_conf(data))
    if data.stat().st_size != 4 * math.prod(shape):
        raise InputError(
            f"{data}: has {data.stat().st_size:,} bytes, not the {4 * math.prod(shape):,} of a float32 array of"
            f" shape {shape} as its .conf says."
        )
    array = np.memmap(data, dtype="<f4", mode="r", shape=shape)
    if not listed.is_file():
        raise InputError(f"{listed}: missing; it says which pairs are the same person.")
    return _verification_set(array, _load(listed), data, folder.name)


def is_arrays(path: Path) -> bool:
    """Whether `path` is a folder with issame.txt."""
    return (path / "issame.txt").is_file()


def read_arrays(path: Path, bounds: Bounds) -> VerificationSet:
    """`<name>/<name>.npy`, uint8 RGB (2P, 3, H, W), and `<name>/issame.txt`, one 0 or 1 a line."""
    files = data_files(path, "*.npy")
    if len(files) != 1:
        raise InputError(f"{path}: should hold one .npy file beside issame.txt, not {len(files)}.")
    bounds.check_all((files[0], path / "issame.txt"))
    words = read_text(path / "issame.txt", free_memory() // MEMORY, errors="replace").split()
    for line, word in enumerate(words):
        if word.lower() not in ("0", "1", "true", "false"):
            raise InputError(f"{path / 'issame.txt'}: line {line + 1} is neither 0 nor 1.")
    issame = np.array([word.lower() in ("1", "true") for word in words])
    return _verification_set(_load(files[0]), issame, files[0], path.name)


def _memfile(path: Path) -> Path | None:
    for file in (path, path / "mem_file.dat", path / "memfile" / "mem_file.dat"):
        if file.is_file() and (file.name == "mem_file.dat" or _conf(file).is_file()):
            return file
    return None


def _conf(data: Path) -> Path:
    return data.with_name(f"{data.name}.conf")


def _configured_shape(conf: Path) -> tuple[int, ...]:
    try:
        entries = read_json(conf)
        shape, dtype = tuple(entries["shape"]), entries["dtype"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{conf}: should be JSON with a shape and a dtype.") from error
    if dtype != "float32" or not all(isinstance(side, int) and side > 0 for side in shape):
        raise InputError(f"{conf}: says {dtype} of shape {shape}; expected float32 of (images, 3, height, width).")
    return shape


def _load(file: Path) -> np.ndarray:
    """A mapped array; never unpickles."""
    try:
        return read_npy(file)
    except InputError:
        raise  # is a ValueError, and says already what is wrong
    except ValueError as error:
        raise InputError(f"{file}: not an array that can be read: {error!s:.300}.") from error


def _verification_set(array: np.ndarray, issame: np.ndarray, file: Path, name: str) -> VerificationSet:
    faces = array.ndim == 4 and 3 in (array.shape[1], array.shape[3]) and array.dtype in (np.uint8, np.float32)
    if not faces:
        raise InputError(f"{file}: an array of {array.dtype} {array.shape} is no set of colour images.")
    if len(array) != 2 * issame.size or issame.size == 0:
        raise InputError(f"{file}: has {len(array)} images, but there are {issame.size} pairs; two a pair are needed.")
    if array[0].nbytes > LARGEST_IMAGE:
        raise InputError(f"{file}: an array of {array.dtype} {array.shape} holds larger images than are read.")
    images = LazyRecords(len(array), lambda position: _record(array, position, name))
    return VerificationSet(images, issame.ravel().astype(bool), name)
