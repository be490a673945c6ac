"""Files that a stranger may have made: opened only if regular, read only up to a limit. Floor 0.

A FIFO or a device in the place of a file blocks the process or fills its memory, and so does a text of one endless
line or a small description that stands for a large one. Every reader opens its files here.
"""

import codecs
import contextlib
import io
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from marginface.errors import InputError

Name = str | os.PathLike[str]
LARGEST_IMAGE = 1 << 26
"""Bytes of one encoded image: twice the largest photographs of today's cameras."""
LARGEST_DESCRIPTION = 1 << 24
"""Bytes of a JSON file: nested lists take 24 times as much in memory."""
LARGEST_CONFIG = 1 << 17
"""Bytes of a YAML file, whose parser takes its time."""
MOST_VALUES = 10_000
"""Values in a YAML file, each alias counted as all that it stands for."""
LONGEST_LINE = 1 << 16
"""Characters of a line of text: a path of 4096 bytes and many numbers."""
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: Name) -> BinaryIO:
    """Open a regular file to read bytes. Raises OSError, and InputError for a FIFO, device, socket or folder."""
    return os.fdopen(_opened(path)[0], "rb")


def read_start(path: Name, count: int) -> bytes:
    """The first `count` bytes of a regular file, by which its kind is known. Raises as `open_file`."""
    with open_file(path) as file:
        return file.read(count)


def read_bytes(path: Name, limit: int | None = None) -> bytes:
    """The content of a regular file.

    limit: the most bytes that it may have; None for a quarter of the free memory. Raises OSError, and InputError for a
    file that is not regular or larger.
    """
    descriptor, size = _opened(path)
    try:
        if size > LARGEST_IMAGE or limit is not None:  # asking for the free memory takes longer than most reads
            limit = free_memory() // 4 if limit is None else limit
            if size > limit:
                raise InputError(
                    f"{path}: has {size:,} bytes, more than the {limit:,} that are read; give another file."
                )
        parts = [os.read(descriptor, size)]
        while parts[-1] and (size := size - len(parts[-1])) > 0:
            parts.append(os.read(descriptor, size))
    finally:
        os.close(descriptor)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_text(path: Name, limit: int | None = None, encoding: str = "utf-8", errors: str = "strict") -> str:
    """As `read_bytes`, decoded, line ends as "\\n". Raises InputError also for what is not text."""
    try:
        text = read_bytes(path, limit).decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise _no_text(path, encoding, f"byte {error.start}") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_head(path: Name, count: int) -> str:
    """The first `count` bytes of a text file, by which its kind is known; "" where they are no text.

    Raises as `open_file`, and InputError for UTF-16, which spreadsheets write as "Unicode text".
    """
    start = read_start(path, count)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\0" in start:
        raise InputError(f"{path}: is UTF-16 text; save it as UTF-8.")
    return "" if b"\0" in start else start.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def read_lines(
    path: Name, encoding: str = "utf-8", errors: str = "strict", newline: str | None = None
) -> Iterator[str]:
    """The lines of a text file, one after the other. Raises as `read_text`, and for lines above LONGEST_LINE."""
    codec = "utf-8-sig" if encoding == "utf-8" else encoding  # which leaves out a byte order mark
    with contextlib.closing(io.TextIOWrapper(open_file(path), codec, errors, newline)) as file:
        number = 1
        try:
            while line := file.readline(LONGEST_LINE):
                if len(line) == LONGEST_LINE and not line.endswith("\n"):
                    raise InputError(
                        f"{path}: line {number} has over {LONGEST_LINE:,} characters; put each entry on its own line."
                    )
                yield line
                number += 1
        except UnicodeDecodeError as error:
            raise _no_text(path, encoding, f"line {number} or later") from error


def _no_text(path: Name, encoding: str, where: str) -> InputError:
    known = encoding.upper().removesuffix("-SIG")
    return InputError(f"{path}: is not {known} text ({where}); save it as {known}.")


def parse_json(text: str | bytes) -> Any:
    """What JSON says. Raises ValueError for text that is damaged or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Name, limit: int = LARGEST_DESCRIPTION) -> Any:
    """What a JSON file says. Raises as `read_bytes`, and ValueError for text that is damaged or nested too deeply."""
    return parse_json(read_bytes(path, limit))


def parse_yaml(text: str) -> Any:
    """What YAML says, plain values only.

    Raises ValueError for text that is damaged, nested too deeply or longer than LARGEST_CONFIG, and where aliases make
    it stand for more than MOST_VALUES values.
    """
    if len(text) > LARGEST_CONFIG:
        raise ValueError(f"it has {len(text):,} characters, more than {LARGEST_CONFIG:,}")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, {})
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml(path: Name) -> Any:
    """What a YAML file says. Raises as `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path, LARGEST_CONFIG))


def free_memory() -> int:
    """Bytes that this process may take: what is free on the machine, within the limits set for it."""
    found = [1 << 33 if sys.platform == "win32" else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with contextlib.suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))  # "max" without a limit
    if sys.platform != "win32":
        import resource

        limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
        found += [limit for limit in limits if limit != resource.RLIM_INFINITY]
    return min(found)


def _opened(path: Name) -> tuple[int, int]:
    """(descriptor, bytes) of a regular file, known as one before it is opened: opening makes some devices act."""
    _check_regular(path, os.stat(path).st_mode)  # noqa: PTH116 - faster than a Path's
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    found = os.fstat(descriptor)
    try:
        _check_regular(path, found.st_mode)  # it may have been replaced meanwhile
    except InputError:
        os.close(descriptor)
        raise
    return descriptor, found.st_size


def _check_regular(path: Name, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InputError(
            f"{path}: is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file; give a regular file."
        )


class _Loader(yaml.SafeLoader):
    """Stops at MOST_VALUES values instead of parsing on."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.values += 1
        _check_values(self.values)
        return super().compose_node(parent, index)


def _count_values(node: Any, counted: dict[int, int]) -> int:
    """How many values a YAML node stands for; an alias is the node itself once more."""
    if id(node) in counted:
        if counted[id(node)] == 0:
            raise ValueError("an alias contains itself")
        return counted[id(node)]
    counted[id(node)] = 0
    total = 1
    for item in () if isinstance(node, yaml.ScalarNode) else node.value:
        total += sum(_count_values(one, counted) for one in (item if isinstance(item, tuple) else (item,)))
        _check_values(total)
    counted[id(node)] = total
    return total


def _check_values(count: int) -> None:
    if count > MOST_VALUES:
        raise ValueError(f"it stands for more than {MOST_VALUES:,} values")
