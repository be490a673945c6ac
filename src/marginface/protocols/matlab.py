"""Names from MATLAB 5 files: TinyFace lists its images in cell arrays of strings. Used by `protocols.tinyface`."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from marginface.errors import InputError

MATRIX, COMPRESSED = 14, 15
CELL, CHAR = 1, 4
TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
LARGEST = 1 << 28


def read_names(path: Path, variable: str) -> list[str]:
    """The first column of the cell array `variable`, as strings.

    Raises InputError for other kinds of file (MATLAB 7.3 is HDF5) and for damaged ones, naming the file.
    """
    try:
        data = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}[data[126:128]]
        for kind, body in _elements(data[128:], order):
            if kind == MATRIX:
                name, dimensions, cells = _cell_array(body, order)
                if name == variable:
                    return [_text(cell, order) for cell in cells[: dimensions[0]]]
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    except (KeyError, ValueError, IndexError, struct.error, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a whole MATLAB 5 file with a cell array of names ({error!r})") from error
    raise InputError(f"{path}: holds no cell array '{variable}'")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of the elements that follow one another in `data`; compressed ones are unpacked."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # the short form: size and kind in one word, the body in the next
            kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start, end = at + 8, at + 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if start + size > len(data):
            raise ValueError("an element is cut short")
        body = data[start : start + size]
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            yield from _elements(unpacker.decompress(body, LARGEST), order)
        else:
            yield kind, body
        at = end


def _cell_array(body: bytes, order: str) -> tuple[str, list[int], list[bytes]]:
    """Name, dimensions and cells of a matrix; no cells where it is another kind of array."""
    parts = list(_elements(body, order))
    flags, dimensions, name = (part for _, part in parts[:3])
    shape = np.frombuffer(dimensions, order + "i4").tolist()
    is_cell = struct.unpack_from(order + "I", flags)[0] & 0xFF == CELL
    return name.decode("latin-1"), shape, [part for _, part in parts[3:]] if is_cell else []


def _text(body: bytes, order: str) -> str:
    (_, flags), _, _, (kind, text) = list(_elements(body, order))[:4]
    if struct.unpack_from(order + "I", flags)[0] & 0xFF != CHAR:
        raise ValueError("a cell holds no text")
    encoding = TEXT[kind]
    return text.decode(encoding + ("-le" if order == "<" else "-be") if encoding == "utf-16" else encoding)
