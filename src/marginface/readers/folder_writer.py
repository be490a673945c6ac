"""Writes image folders. Called by `convert`."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from marginface.errors import InputError
from marginface.readers.base import Record
from marginface.readers.containment import is_possible
from marginface.readers.image_walk import IMAGE_SUFFIXES, is_hidden
from marginface.readers.names import write_names
from marginface.readers.writer import Contents, encoded, suffix_of

LONGEST_KEY = 1000  # characters; the folder that the set is written to has a path too
FORBIDDEN = set('/\\:*?"<>|') | set(map(chr, range(32)))


class FolderWriter:
    """`<identity>/<image>`. Identities keep their names if these sort in the order of the labels, else numbers,
    and classes.txt holds the names.

    An image is called by the part of its key below the identity, or by all of its key; where that is a number
    it gets leading zeros. So a folder read from elsewhere comes out as it was, in the same order. A key that no file
    can be called by is replaced by its SHA-256.
    """

    def __init__(self, folder: Path, contents: Contents, state: dict[str, int]) -> None:
        self._folder, self._done = folder, state.get("done", 0)
        names = contents.class_names
        ordered = names is not None and all(names[i] < names[i + 1] for i in range(len(names) - 1))
        plain = names is not None and all(is_plain(name) for name in names)
        self._contents = contents if ordered and plain else Contents(contents.labels, contents.num_classes, None)
        self._original = contents

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            image = encoded(record)
            identity = self._contents.identity(record.label)
            self._put(self._folder / identity / self._name(record, image), image, record.key)
        self._done += len(records)

    def state(self) -> dict[str, int]:
        return {"done": self._done}

    def finish(self) -> None:
        if self._original.class_names is not None and self._contents is not self._original:
            write_names(self._folder, self._original.class_names)

    def _name(self, record: Record, image: bytes) -> str:
        """The path of an image below its identity; never leads out of it."""
        name = record.key.removeprefix(f"{self._original.identity(record.label)}/")
        if name.isdecimal():
            name = name.zfill(9)
        parts = [part for part in name.replace("\\", "/").replace("\0", "").split("/") if part.strip(".")]
        parts = [f"_{part}" if is_hidden(part) else part for part in parts] or ["_"]
        if not parts[-1].lower().endswith(IMAGE_SUFFIXES):
            parts[-1] += suffix_of(image)
        path = "/".join(parts)
        if len(path) <= LONGEST_KEY and is_possible(path):
            return path
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest() + suffix_of(image)

    def _put(self, path: Path, image: bytes, key: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            taken = path.exists() and path.read_bytes() != image  # the same image: written before an interruption
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            taken = True
        if taken:
            raise InputError(f"{path}: two different images of this identity would get this name (key {key!r:.200}).")
        temporary = path.with_name(".partial")  # short, as the name may be as long as names can be
        temporary.write_bytes(image)
        temporary.replace(path)


def is_plain(name: str) -> bool:
    """Whether a name can be that of one folder, everywhere."""
    return bool(name.strip(".")) and not is_hidden(name) and not set(name) & FORBIDDEN and is_possible(name)
