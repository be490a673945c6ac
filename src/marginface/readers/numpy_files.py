"""Arrays from npy and npz files, their claims checked before memory is taken."""

import io
import math
import mmap
from collections.abc import Container
from pathlib import Path

import numpy as np

from marginface.readers.archive_index import zip_content, zip_members
from marginface.readers.mapped import NPY_ERRORS, map_file
from marginface.untrusted import free_memory

FREE_GROWTH, GROWTH = 1 << 28, 100
"""An array may unpack to so many bytes, and more only by this factor: names and flags shrink, embeddings do not."""
EMPTY_SIDE = 4096
"""The longest side of an array without elements: a side of 0 hides the size of the others."""
LONGEST_HEADER = 1 << 16
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path, wanted: Container[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file of numpy.savez or savez_compressed, read-only; only those in `wanted` where given.

    Raises OSError, and ValueError for files that are damaged, hold objects, or claim more than they can hold or than
    a quarter of the free memory.
    """
    data = map_file(path)
    members = {member.name.removesuffix(".npy"): member for member in zip_members(path)}
    chosen = {name: member for name, member in members.items() if wanted is None or name in wanted}
    for name, member in chosen.items():
        if member.size > FREE_GROWTH + GROWTH * member.packed_size:
            raise ValueError(f"{name!r:.80} claims {member.size:,} bytes, packed into {member.packed_size:,}")
    total, most = sum(member.size for member in chosen.values()), free_memory() // 4
    if total > most:
        raise ValueError(f"its arrays have {total:,} bytes, more than the {most:,} that memory allows")
    return {name: _array(name, zip_content(data, member)) for name, member in chosen.items()}


def read_npy(path: Path) -> np.ndarray:
    """The array of a file of numpy.save, mapped and read-only. Raises as `read_npz`."""
    return _array(path.name, map_file(path))


def _array(name: str, content: bytes | mmap.mmap) -> np.ndarray:
    """A view of the content of an npy file."""
    try:
        file = io.BytesIO(content[:LONGEST_HEADER])
        version = np.lib.format.read_magic(file)
        shape, fortran, dtype = HEADERS[version](file)
        size, start = math.prod(shape) * dtype.itemsize, file.tell()
        longest = max(size, EMPTY_SIDE)
        if dtype.hasobject or not dtype.itemsize or size != len(content) - start or max(shape, default=0) > longest:
            raise ValueError(f"{dtype} {shape} in {len(content) - start:,} bytes")
        return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    except (*NPY_ERRORS, KeyError) as error:
        raise ValueError(f"{name!r:.80} is no array: {' '.join(str(error).split()):.200}") from error
