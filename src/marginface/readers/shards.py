"""WebDataset shards on disk, read at random: no library is needed for that. Opened by `open_reader`."""

import mmap
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.readers.archive_index import Member, check_image, is_tar, tar_members
from marginface.readers.base import Record, read_each
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import IMAGE_SUFFIXES, data_files
from marginface.readers.mapped import map_file
from marginface.readers.names import number_labels, spelt
from marginface.untrusted import parse_json

NUMBER = re.compile(r"[-+]?\d+")
LONGEST_TEXT = 1 << 16  # bytes of a label or of what is said about an image


@dataclass
class _Index:
    """Where everything lies: a row of `places` is shard, offset and size of the image and of its JSON (or 0, 0)."""

    places: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)  # by number in `written`
    written: dict[str, int] = field(default_factory=dict)


class ShardsReader:
    """Reads the tar files in `path`, or one: samples of an image, its class as `.cls`, perhaps `.json`.

    A class is a whole number or, in all samples, a name. If the JSON of a sample has "key", "identity" and
    "num_classes", as `marginface convert` writes them, they are taken from there; else a key is the name of the sample.

    Raises InputError, naming shard and byte, if a shard is damaged or a sample has no class.
    """

    def __init__(
        self, path: str | os.PathLike[str], files: Sequence[Path] | None = None, allow_outside: bool = False
    ) -> None:
        """files: the shards in their order, if they do not lie at `path`."""
        self.path = Path(path)
        self._files = shard_files(self.path) if files is None else list(files)
        if files is None and self.path.is_dir():
            Bounds(self.path, allow_outside=allow_outside).check_all(self._files)
        self._data = [map_file(file) for file in self._files]
        self.left_out = Counter[str]()  # files that are no images, by suffix
        index = _Index()
        for number in range(len(self._files)):
            self._index(number, index)
        if not index.labels:
            raise InputError(f"{self.path}: its shards hold no images.")
        self._places = np.array(index.places, dtype=np.int64)
        self.labels, names = number_labels(index.written, np.array(index.labels, dtype=np.int64))
        self.num_classes = len(names)
        first = self._about(0)
        self.without_images = _missing(names, first.get("num_classes"))
        named = "identity" in first or names != [str(label) for label in range(len(names))]
        self.class_names: Sequence[str] | None = self._names(names) if named else None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[Record]:
        return read_each(indices, self._read_one)

    def _read_one(self, index: int) -> Record:
        shard, offset, size, _, _ = self._places[index].tolist()
        key = self._about(index).get("key")
        return Record(
            self._data[shard][offset : offset + size],
            int(self.labels[index]),
            spelt(key) if isinstance(key, str) else f"{self._files[shard].name}:{offset}",
        )

    def _index(self, number: int, index: _Index) -> None:
        """Adds the samples of one shard."""
        file, data = self._files[number], self._data[number]
        for name, parts in _samples(tar_members(file, data)):
            image = next((part for suffix, part in parts.items() if suffix.endswith(IMAGE_SUFFIXES)), None)
            if image is None:
                self.left_out.update(parts.keys() - {".cls", ".json"} or ["sample without an image"])
                continue
            about = parts.get(".json")
            try:
                check_image(image)
                if ".cls" not in parts:
                    raise ValueError("it has no .cls with its class number")
                label = _class(_text(data, parts[".cls"]), next(iter(index.written), None))
            except ValueError as error:
                raise InputError(f"{file}: sample {name}, byte {image.offset}, cannot be used: {error}.") from error
            more = (about.offset, about.size) if about is not None and about.size <= LONGEST_TEXT else (0, 0)
            index.places.append((number, image.offset, image.size, *more))
            index.labels.append(index.written.setdefault(label, len(index.written)))

    def _about(self, index: int) -> dict[str, Any]:
        """What the JSON of a sample says; nothing if it is damaged, since the image and its label are not."""
        shard, _, _, offset, size = self._places[index].tolist()
        try:
            about = parse_json(self._data[shard][offset : offset + size] or b"{}")
        except ValueError:
            return {}
        return about if isinstance(about, dict) else {}

    def _names(self, names: list[str]) -> list[str]:
        """What the JSON of an image of each identity calls it, else what its `.cls` does."""
        _, rows = np.unique(self.labels, return_index=True)
        return [spelt(str(self._about(int(row)).get("identity", names[label]))) for label, row in enumerate(rows)]


def _class(text: str, first: str | None) -> str:
    """What a `.cls` says: a whole number, or a name if that of the first image is one. Else raises ValueError."""
    text = spelt(text.strip())
    if NUMBER.fullmatch(text if first is None else first):
        if not (text.isascii() and text.isdecimal() and int(text) < 1 << 63):
            raise ValueError(f"its class number is {text[:40] or 'empty'}")
        return str(int(text))
    if not text:
        raise ValueError("its .cls is empty")
    return text


def _missing(names: list[str], declared: object) -> list[str]:
    """The class numbers below that declared that no image has; none where it is not that, or a lie."""
    if not all(map(str.isdecimal, names)) or not isinstance(declared, int):
        return []
    if not int(names[-1]) < declared <= 1000 + 4 * len(names):
        return []
    return sorted(set(map(str, range(declared))) - set(names), key=int)


def is_shards(path: Path) -> bool:
    """Whether `path` is a tar file of WebDataset samples, or a folder with one."""
    return bool(shard_files(path))


def shard_files(path: Path) -> list[Path]:
    """The shards at `path`, of several splits those of the training set."""
    files = [path] if path.is_file() else data_files(path, "*.tar")
    files = [file for file in files if is_tar(file) and _has_labels(file)]
    return [file for file in files if file.name.startswith("train")] or files


def _has_labels(file: Path) -> bool:
    """Whether a class number is among the first files of the archive."""
    members = tar_members(file, map_file(file))
    return any(member.name.endswith(".cls") for _, member in zip(range(10), members, strict=False))


def _samples(members: Iterator[Member]) -> Iterator[tuple[str, dict[str, Member]]]:
    """Files in a row whose paths are equal up to the first dot of the name: (that path, {suffix: file})."""
    name, parts = "", dict[str, Member]()
    for member in members:
        folder, slash, file = member.name.rpartition("/")
        stem, dot, suffix = file.partition(".")
        if f"{folder}{slash}{stem}" != name:
            if parts:
                yield name, parts
            name, parts = f"{folder}{slash}{stem}", {}
        parts[(dot + suffix).lower()] = member
    if parts:
        yield name, parts


def _text(data: mmap.mmap, member: Member) -> str:
    if member.size > LONGEST_TEXT:
        raise ValueError(f"its {member.name} has {member.size:,} bytes")
    return data[member.offset : member.offset + member.size].decode("utf-8", "replace")
