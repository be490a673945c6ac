"""A stack machine for the pickle language that runs nothing and takes bounded time and memory.

`pickle` calls whatever a file names, and even with its names restricted it can be made to take all memory. This machine
knows the opcodes that data needs, of Python 2 and 3 and all protocols (opcodes: CPython's pickletools). Names only pick
what the caller of the machine offers. Nothing in it recurses over the data, so nesting costs no more than its opcodes.
Used by `safe_pickle` and for checkpoints.
"""

import codecs
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MARK = object()
LONGEST_NAME = 1000
FEWEST_STEPS, BYTES_PER_STEP = 1_000_000, 32
"""The steps allowed are the former and one more for this many bytes: some 20 are needed for an array of an image."""
GROWTH, FREE = 2, 1 << 20
"""Bytes that functions may go through: so many times those of the pickle, and these."""
ELEMENT = 16
"""Bytes that an element of a list, tuple or dictionary counts as."""
MOST_STATE = 16


@dataclass(frozen=True, slots=True)
class Function:
    """What the pickle may call, by its name."""

    call: Callable[..., Any]


class Unfilled:
    """An object that the pickle has announced; `fill` takes its state and returns what stands for it from then on."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        self.places: list[int] = []  # of the memo, to be filled too

    def fill(self, state: tuple[Any, ...]) -> Any:
        raise NotImplementedError


class Opaque:
    """Stands for an object that is of no use; all that is done to it is ignored."""

    __slots__ = ()


OPAQUE = Opaque()


class Machine:
    """Runs the pickle that starts at byte `at` of `data`; afterwards `at` is the byte behind it.

    find: what a name, (module, name), stands for: a `Function` or anything else. persistent: what a persistent id
    stands for. Both raise ValueError for what is not allowed.
    """

    def __init__(
        self,
        data: bytes | mmap.mmap,
        find: Callable[[str, str], Any],
        persistent: Callable[[Any], Any] | None = None,
        at: int = 0,
    ) -> None:
        self.data, self.at = data, at
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.left = GROWTH * len(data) + FREE

    def run(self) -> Any:
        """The object. Raises ValueError if the pickle is damaged, or asks for what data does not need."""
        try:
            for _ in range(FEWEST_STEPS + len(self.data) // BYTES_PER_STEP):
                code = self.take(1)
                if code == b".":
                    return self.pop()
                operation = OPERATIONS.get(code)
                if operation is None:
                    raise ValueError(f"the pickle does {code!r}, which plain data does not need")
                operation(self)
        except (TypeError, IndexError, KeyError, OverflowError, AttributeError, RecursionError, struct.error) as error:
            raise ValueError(str(error)) from error
        raise ValueError("the pickle takes more steps than data of its size needs")

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

    def short_line(self) -> bytes:
        """Of a name or a number."""
        line = self.line()
        if len(line) > LONGEST_NAME:
            raise ValueError(f"a name or number of {len(line):,} characters")
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
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)
        elif self.stack[-1] is not OPAQUE:
            raise ValueError("appends to something that is no list")

    def set_items(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(plain_items(zip(values[::2], values[1::2], strict=True)))
        elif self.stack[-1] is not OPAQUE:
            raise ValueError("sets items of something that is no dictionary")

    def dictionary(self) -> None:
        values = self.pop_to_mark()
        self.push({})
        self.set_items(values)

    def tuple_of(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def keep(self, place: int) -> None:
        if not is_plain_key(place):
            raise ValueError("an impossible place in the memo")
        value = self.memo[place] = self.stack[-1]
        if isinstance(value, Unfilled):
            value.places.append(place)

    def name(self, module: Any, name: Any) -> None:
        self.push(self.find(text(module), text(name)))

    def name_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Function | Opaque) or not isinstance(arguments, tuple):
            raise ValueError("the pickle calls something that is no function")
        if isinstance(function, Opaque):
            self.push(OPAQUE)
            return
        self.handled(arguments)
        for argument in arguments:
            self.handled(argument)
        self.push(function.call(*arguments))

    def handled(self, value: Any) -> None:
        """Counts what a function goes through, which the pickle may give to it again and again."""
        if isinstance(value, bytes | str | list | tuple | dict):
            self.left -= len(value) * (1 if isinstance(value, bytes | str) else ELEMENT)
            if self.left < 0:
                raise ValueError("the pickle handles its data again and again")

    def call_with_names(self) -> None:
        self.pop()  # arguments by name
        self.call()

    def build(self) -> None:
        state, built = self.pop(), self.pop()
        if not isinstance(built, Unfilled):  # attributes, of which nothing is read
            self.push(built)
            return
        if not isinstance(state, tuple) or len(state) > MOST_STATE:
            raise ValueError("the pickle changes something that is no array")
        for part in state:
            self.handled(part)
        filled = built.fill(state)
        self.memo.update(dict.fromkeys(built.places, filled))
        built.places = []
        self.push(filled)

    def persist(self, identifier: Any) -> None:
        if self.persistent is None:
            raise ValueError("the pickle refers to something outside of it")
        self.handled(identifier)
        self.push(self.persistent(identifier))


def text(value: Any) -> str:
    """A name, which is bytes in the pickles of Python 2. Raises ValueError for anything else and for long ones."""
    if not isinstance(value, bytes | str):
        raise ValueError("a name that is no text")
    if len(value) > LONGEST_NAME:
        raise ValueError(f"a name of {len(value):,} characters")
    return value.decode("ascii") if isinstance(value, bytes) else value


def plain_items(pairs: Any) -> dict[Any, Any]:
    """A dictionary of those pairs whose keys are text or small numbers."""
    return {key: value for key, value in pairs if is_plain_key(key)}


def is_plain_key(key: Any) -> bool:
    """Whether keys like this are found quickly: tuples take any time to hash, and large numbers can share a hash."""
    return isinstance(key, bytes | str | None) or (isinstance(key, int) and abs(key) < 1 << 32)


def _int_line(line: bytes) -> int | bool:
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.rstrip(b"L"))


def _quoted(line: bytes) -> bytes:
    """The text protocol's 'bytes', with backslashes."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise ValueError("a string without quotes")
    unescaped: bytes = codecs.escape_decode(line[1:-1])[0]
    return unescaped


def _nothing(_: object) -> None:
    pass


OPERATIONS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": lambda m: _nothing(m.take(1)),  # protocol
    b"\x95": lambda m: _nothing(m.take(8)),  # frame
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.push(_int_line(m.short_line())),
    b"L": lambda m: m.push(_int_line(m.short_line())),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    b"F": lambda m: m.push(float(m.short_line())),
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
    b"}": lambda m: m.push({}),
    b"d": lambda m: m.dictionary(),
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.set_items(m.pop_to_mark()),
    b"\x8f": lambda m: m.push([]),  # a set
    b"\x90": lambda m: m.extend(m.pop_to_mark()),
    b"\x91": lambda m: m.push(m.pop_to_mark()),
    b"p": lambda m: m.keep(int(m.short_line())),
    b"q": lambda m: m.keep(m.number("<B")),
    b"r": lambda m: m.keep(m.number("<I")),
    b"\x94": lambda m: m.keep(len(m.memo)),
    b"g": lambda m: m.push(m.memo[int(m.short_line())]),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"c": lambda m: m.name(m.short_line(), m.short_line()),
    b"\x93": lambda m: m.name_on_stack(),
    b"R": lambda m: m.call(),
    b"\x81": lambda m: m.call(),  # __new__, likewise
    b"\x92": lambda m: m.call_with_names(),
    b"b": lambda m: m.build(),
    b"Q": lambda m: m.persist(m.pop()),
    b"P": lambda m: m.persist(m.short_line()),
}
