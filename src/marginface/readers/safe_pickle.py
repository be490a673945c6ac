"""Reads pickles of plain data without running anything they ask for. Called by `verification_bin`.

`pickle` calls whatever a file names, and even with its names restricted it can be made to take all memory. This
is a reader of its own for the few opcodes that lists, tuples, bytes, text, numbers and numpy arrays need, of
Python 2 and 3 and all protocols (opcodes: CPython's pickletools). Names only ever pick a function of CALLS.
"""

import codecs
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

PLAIN_DTYPE = re.compile(r"[<>=|]?(bool|[biuf]\d{0,2}|O8?)")
MARK = object()


class _Array:
    """An array that the pickle has announced but not yet filled; `fill` is its __setstate__."""

    def __init__(self, *_: Any) -> None:
        self.places: list[int] = []  # of the memo, to be filled too

    def fill(self, state: Any) -> Any:
        _, shape, dtype, fortran, content = state
        if isinstance(content, list):
            return content
        return _array(content, dtype, shape, "F" if fortran else "C")


class _Dtype:
    """A dtype; its state adds nothing but the byte order."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not PLAIN_DTYPE.fullmatch(_text(name)):
            raise ValueError(f"an array of {name!r:.40}, which is no number")
        self.dtype = np.dtype(_text(name))

    def fill(self, state: Any) -> "_Dtype":
        if _text(state[1]) == ">":
            self.dtype = self.dtype.newbyteorder(">")
        return self


def _array(content: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(dtype, _Dtype) or dtype.dtype.hasobject or not isinstance(content, bytes):
        raise ValueError("an array without plain content")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order="F" if _text(order) == "F" else "C")


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, (1,))[0]


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    """Python 3 writes bytes as text for the protocols of Python 2."""
    if _text(encoding) not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in the encoding {encoding!r:.40}")
    return content if isinstance(content, bytes) else str(content).encode("latin1")


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
MODULES = ("numpy", "_codecs", "__builtin__", "builtins")


def load(data: bytes) -> Any:
    """The object in a pickle. Raises ValueError, naming the byte, if it is damaged or asks for anything else."""
    machine = _Machine(data)
    try:
        return machine.run()
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError, struct.error) as error:
        raise ValueError(f"byte {machine.at}: {error}") from error


def _text(value: Any) -> str:
    """Names are bytes in the pickles of Python 2."""
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


class _Machine:
    """The stack machine of the pickle language."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while (code := self.take(1)) != b".":
            operation = OPERATIONS.get(code)
            if operation is None:
                raise ValueError(f"the pickle does {code!r}, which plain data does not need")
            operation(self)
        return self.pop()

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            raise ValueError(f"it claims {count:,} bytes where {len(self.data) - self.at:,} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str) -> int:
        return int(struct.unpack(layout, self.take(struct.calcsize(layout)))[0])

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise ValueError("a line that does not end")
        line = self.take(end - self.at)
        self.at += 1
        return line

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a value is missing")
        return value

    def pop_to_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not MARK:
            start -= 1
            if start < 0:
                raise ValueError("a mark is missing")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("appends to something that is no list")
        self.stack[-1].extend(values)

    def tuple_of(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def keep(self, place: int) -> None:
        value = self.memo[place] = self.stack[-1]
        if isinstance(value, _Array):
            value.places.append(place)

    def name(self, module: Any, name: Any) -> None:
        module, name = _text(module), _text(name)
        if module.partition(".")[0] not in MODULES or name not in CALLS:
            raise ValueError(f"the pickle wants to use {module:.40}.{name:.40}, which is not allowed")
        self.push(CALLS[name])

    def name_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not any(function is allowed for allowed in CALLS.values()) or not isinstance(arguments, tuple):
            raise ValueError("the pickle calls something that is no function")
        self.push(function(*arguments))

    def build(self) -> None:
        state, unfilled = self.pop(), self.pop()
        if not isinstance(unfilled, _Array | _Dtype) or not isinstance(state, tuple):
            raise ValueError("the pickle changes something that is no array")
        filled = unfilled.fill(state)
        if isinstance(unfilled, _Array):
            self.memo.update(dict.fromkeys(unfilled.places, filled))
        self.push(filled)


def _int_line(line: bytes) -> int | bool:
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.rstrip(b"L"))


def _quoted(line: bytes) -> bytes:
    """The text protocol's 'bytes', with backslashes."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise ValueError("a string without quotes")
    text: bytes = codecs.escape_decode(line[1:-1])[0]
    return text


OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": lambda m: _nothing(m.take(1)),  # protocol
    b"\x95": lambda m: _nothing(m.take(8)),  # frame
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.push(_int_line(m.line())),
    b"L": lambda m: m.push(_int_line(m.line())),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    b"F": lambda m: m.push(float(m.line())),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"S": lambda m: m.push(_quoted(m.line())),
    b"T": lambda m: m.push(m.take(m.number("<i"))),
    b"U": lambda m: m.push(m.take(m.number("<B"))),
    b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"C": lambda m: m.push(m.take(m.number("<B"))),
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))),
    b"\x96": lambda m: m.push(m.take(m.number("<Q"))),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"X": lambda m: m.push(m.take(m.number("<I")).decode("utf-8", "surrogatepass")),
    b"\x8c": lambda m: m.push(m.take(m.number("<B")).decode("utf-8", "surrogatepass")),
    b"\x8d": lambda m: m.push(m.take(m.number("<Q")).decode("utf-8", "surrogatepass")),
    b"(": lambda m: m.push(MARK),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.pop_to_mark()),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.pop_to_mark()),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.pop_to_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"p": lambda m: m.keep(int(m.line())),
    b"q": lambda m: m.keep(m.number("<B")),
    b"r": lambda m: m.keep(m.number("<I")),
    b"\x94": lambda m: m.keep(len(m.memo)),
    b"g": lambda m: m.push(m.memo[int(m.line())]),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": lambda m: m.name_on_stack(),
    b"R": lambda m: m.call(),
    b"b": lambda m: m.build(),
}


def _nothing(_: object) -> None:
    pass
