"""WebDataset shards on disk, read at random: no library is needed for that. Opened by `open_reader`."""

import mmap
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.readers.archive_index import Member, check_image, is_tar, tar_members
from marginface.readers.base import MOST_CLASSES, Record, read_each
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import IMAGE_SUFFIXES, find_files
from marginface.readers.mapped import map_file
from marginface.readers.names import spelt
from marginface.untrusted import parse_json

LONGEST_TEXT = 1 << 16  # bytes of a label or of what is said about an image


@dataclass
class _Index:
    """Where everything lies: a row of `places` is shard, offset and size of the image and of its JSON (or 0, 0)."""

    places: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


class ShardsReader:
    """Reads the tar files in `path`, or one: samples of an image, its class number as `.cls`, perhaps `.json`.

    If the JSON of a sample has "key", "identity" and "num_classes", as `marginface convert` writes them, they are
    taken from there; else a key is the name of the sample, and the number of classes one more than the last label.

    Raises InputError, naming shard and byte, if a shard is damaged or a sample has no label.
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
        self.labels = np.array(index.labels, dtype=np.int64)
        first = self._about(0)
        declared = first.get("num_classes")
        most = int(self.labels.max()) + 1
        self.num_classes = declared if isinstance(declared, int) and most <= declared < MOST_CLASSES else most
        named = "identity" in first and self.num_classes <= 1000 + 4 * len(self)  # else the number is a lie
        self.class_names: Sequence[str] | None = self._names() if named else None

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
                label = int(_text(data, parts[".cls"]))
                if not 0 <= label < MOST_CLASSES:
                    raise ValueError(f"its class number is {label}")
            except ValueError as error:
                raise InputError(f"{file}: sample {name}, byte {image.offset}, cannot be used: {error}.") from error
            more = (about.offset, about.size) if about is not None and about.size <= LONGEST_TEXT else (0, 0)
            index.places.append((number, image.offset, image.size, *more))
            index.labels.append(label)

    def _about(self, index: int) -> dict[str, Any]:
        """What the JSON of a sample says; nothing if it is damaged, since the image and its label are not."""
        shard, _, _, offset, size = self._places[index].tolist()
        try:
            about = parse_json(self._data[shard][offset : offset + size] or b"{}")
        except ValueError:
            return {}
        return about if isinstance(about, dict) else {}

    def _names(self) -> list[str]:
        names = [str(label) for label in range(self.num_classes)]
        for label, row in zip(*np.unique(self.labels, return_index=True), strict=True):
            names[label] = spelt(str(self._about(int(row)).get("identity", label)))
        return names


def is_shards(path: Path) -> bool:
    """Whether `path` is a tar file of WebDataset samples, or a folder with one."""
    return bool(shard_files(path))


def shard_files(path: Path) -> list[Path]:
    """The shards at `path`, of several splits those of the training set."""
    files = [path] if path.is_file() else find_files(path, "*.tar")
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
    return data[member.offset : member.offset + member.size].decode("ascii", "replace")
