"""Text that becomes a file's name, and file names that become text. Floor 0."""

import codecs
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from marginface.errors import InputError

LONGEST = 200  # bytes of one name; file systems take 255, and temporary names and suffixes are longer
ERRORS = "marginface"
"""How to encode any file name: bytes that are not UTF-8 as they were, whatever else does not fit as an escape."""
NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def is_file_name(text: str) -> bool:
    """Return whether `text` can name one file or folder everywhere: no separator, not hidden, not too long."""
    long = len(text.encode("utf-8", ERRORS)) > LONGEST
    return bool(text.strip(". ")) and not long and text[0] not in ".-~ " and not NOT_IN_NAMES.search(text)


def check_file_name(text: str, what: str) -> None:
    """Raise InputError, naming `what`, unless `text` can name one file or folder, such as that of a run."""
    if not is_file_name(text):
        raise InputError(
            f"{what} is {text!r:.80}: give the name of one folder, of up to {LONGEST} bytes, without / and other "
            f"characters that file systems keep for themselves, not beginning with . - or ~"
        )


def as_file_name(text: str) -> str:
    """Return `text`, such as a benchmark's name, with whatever `is_file_name` refuses turned into underscores."""
    name = NOT_IN_NAMES.sub("_", as_text(text))
    name = name if name and is_file_name(f"{name[0]}x") else f"_{name}"
    return name.encode()[:LONGEST].decode("utf-8", "ignore")


def leads_out(key: str) -> bool:
    """Return whether a record's key would lead out of the folder that it is read below."""
    path = PurePosixPath(key.replace("\\", "/"))
    return path.is_absolute() or not path.parts or ".." in path.parts or "\0" in key


def as_text(name: str) -> str:
    r"""Return a file name as text that every format can hold: bytes that are not UTF-8 are written \xNN."""
    return name.encode("utf-8", ERRORS).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def utf8_name(path: str | os.PathLike[str]) -> Iterator[str]:
    """A name of a file for libraries that take only UTF-8: its own, or that of a descriptor that is open within."""
    name = os.fspath(path)
    if name.isascii() or as_text(name) == name:
        yield name
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _encode(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # how Python keeps such a byte
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return character.encode("ascii", "backslashreplace").decode(), error.start + 1


codecs.register_error(ERRORS, _encode)
