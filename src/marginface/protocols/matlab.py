"""Names from MATLAB 5 files: TinyFace lists its images in cell arrays of strings. Used by `protocols.tinyface`."""

import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.untrusted import read_bytes

MATRIX, COMPRESSED = 14, 15
CELL, CHAR = 1, 4
TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
LARGEST_FILE = 1 << 26
LARGEST_VARIABLE = 1 << 24
"""Bytes of the cell array, unpacked: 20 times TinyFace's."""
BEGINNING = 1 << 12
"""Bytes of a variable that hold its name."""
MOST_VARIABLES = 1000


def read_names(path: Path, variable: str) -> list[str]:
    """The first column of the cell array `variable`, as strings.

    Raises InputError for other kinds of file (MATLAB 7.3 is HDF5), for damaged ones and for those that unpack to more
    than a list of images needs, naming the file.
    """
    try:
        data = read_bytes(path, LARGEST_FILE)
        order = {b"IM": "<", b"MI": ">"}[data[126:128]]
        for kind, body in islice(_elements(memoryview(data)[128:], order), MOST_VARIABLES):
            if kind == COMPRESSED and _name(_unpacked(body, BEGINNING), order) == variable:
                body = _unpacked(body, LARGEST_VARIABLE)[8:]
            elif kind != MATRIX or _matrix(body, order)[0] != variable:
                continue
            if len(body) + 8 >= LARGEST_VARIABLE:
                raise ValueError(f"{variable} has {LARGEST_VARIABLE:,} bytes or more")
            _, count, cells = _matrix(body, order)
            return [_text(cell, order) for cell in islice(cells, count)]
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    except InputError:
        raise  # is a ValueError, and says already what is wrong
    except (KeyError, ValueError, IndexError, StopIteration, struct.error, zlib.error) as error:
        raise InputError(f"{path}: not a whole MATLAB 5 file with a cell array of names ({error!r})") from error
    raise InputError(f"{path}: holds no cell array '{variable}'")


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(kind, body) of the elements that follow one another in `data`."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # the short form: size and kind in one word, the body in the next
            kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start, end = at + 8, at + 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if start + size > len(data):
            raise ValueError("an element is cut short")
        yield kind, data[start : start + size]
        at = end


def _unpacked(body: memoryview, limit: int) -> memoryview:
    """The first `limit` bytes of a compressed element, which holds one matrix; all of it if there are fewer."""
    return memoryview(zlib.decompressobj().decompress(body, limit))


def _name(beginning: memoryview, order: str) -> str:
    """Of the matrix that begins there; its end may be missing."""
    return _matrix(beginning[8:], order)[0]


def _matrix(body: memoryview, order: str) -> tuple[str, int, Iterator[memoryview]]:
    """Name, rows and cells of a matrix; no cells where it is another kind of array."""
    parts = _elements(body, order)
    flags, dimensions, name = (part for _, part in islice(parts, 3))
    rows = int(np.frombuffer(dimensions, order + "i4")[0])
    is_cell = struct.unpack_from(order + "I", flags)[0] & 0xFF == CELL
    return bytes(name).decode("latin-1"), max(rows, 0) * is_cell, (part for _, part in parts)


def _text(body: memoryview, order: str) -> str:
    (_, flags), _, _, (kind, text) = islice(_elements(body, order), 4)
    if struct.unpack_from(order + "I", flags)[0] & 0xFF != CHAR:
        raise ValueError("a cell holds no text")
    encoding = TEXT[kind]
    return bytes(text).decode(encoding + ("-le" if order == "<" else "-be") if encoding == "utf-16" else encoding)
