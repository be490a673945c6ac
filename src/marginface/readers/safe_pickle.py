"""Reads pickles of lists, numbers, text and numpy arrays without running anything. Called by `verification_bin`."""

import mmap
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from marginface.readers.pickle_machine import Function, Machine, Unfilled, text

PLAIN_DTYPE = re.compile(r"[<>=|]?(bool|[biuf]\d{0,2}|O8?)")
EMPTY_SIDE = 4096
"""The longest side of an array without content: a side of 0 hides the size of the others."""
MODULES = ("numpy", "_codecs", "__builtin__", "builtins")


def load(data: bytes | mmap.mmap) -> Any:
    """The object in a pickle. Raises ValueError, naming the byte, if it is damaged or asks for anything else."""
    machine = Machine(data, _find)
    try:
        return machine.run()
    except ValueError as error:
        raise ValueError(f"byte {machine.at}: {error}") from error


def _find(module: str, name: str) -> Function:
    if module.partition(".")[0] not in MODULES or name not in CALLS:
        raise ValueError(f"the pickle wants to use {f'{module:.40}.{name:.40}'!r}, which is not allowed")
    return Function(CALLS[name])


class _Array(Unfilled):
    """An array; its state is all of it."""

    __slots__ = ()

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def fill(self, state: tuple[Any, ...]) -> Any:
        _, shape, dtype, fortran, content = state
        if isinstance(content, list):
            return content
        return _array(content, dtype, shape, "F" if fortran else "C")


class _Dtype(Unfilled):
    """A dtype; its state adds nothing but the byte order."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *_: Any) -> None:
        super().__init__()
        if not PLAIN_DTYPE.fullmatch(text(name)):
            raise ValueError(f"an array of {text(name)!r:.40}, which is no number")
        self.dtype = np.dtype(text(name))

    def fill(self, state: tuple[Any, ...]) -> "_Dtype":
        if text(state[1]) == ">":
            self.dtype = self.dtype.newbyteorder(">")
        return self


def _array(content: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """A view of the content."""
    if not isinstance(dtype, _Dtype) or dtype.dtype.hasobject or not isinstance(content, bytes):
        raise ValueError("an array without plain content")
    sides = shape if isinstance(shape, tuple) else (shape,)
    longest = max(len(content), EMPTY_SIDE)
    if len(sides) > 32 or not all(isinstance(side, int) and side <= longest for side in sides):
        raise ValueError("an array of a shape that does not fit its content")
    return np.frombuffer(content, dtype.dtype).reshape(sides, order="F" if text(order) == "F" else "C")


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, (1,))[0]


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    """Python 3 writes bytes as text for the protocols of Python 2."""
    if text(encoding) not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in the encoding {text(encoding)!r:.40}")
    if not isinstance(content, bytes | str):
        raise ValueError("bytes of something that is no text")
    return content if isinstance(content, bytes) else content.encode("latin1")


CALLS: dict[str, Callable[..., Any]] = {
    "_reconstruct": _Array,
    "dtype": _Dtype,
    "scalar": _scalar,
    "_frombuffer": _array,
    "encode": _bytes,
    "bytes": _bytes,
    "bytearray": _bytes,
    "ndarray": _Array,
}
