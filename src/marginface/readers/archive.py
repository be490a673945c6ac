"""Zip and tar archives of image folders, read without unpacking. Opened by `open_reader`."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.archive_index import Member, check_image, is_zip, tar_members, zip_content, zip_members
from marginface.readers.base import Record, read_each
from marginface.readers.image_walk import BEGINNING_BYTES, OF_NOBODY, begins_as_image, is_hidden, kind_of, list_kinds
from marginface.readers.mapped import map_file
from marginface.readers.names import CLASSES, PackedNames, names_in


class ArchiveReader:
    """Reads `[folders/]<identity>/<image>` out of a zip or an uncompressed tar archive.

    Folders that all images share are no identities; a key is the path below them. Order and labels are those of
    `FolderReader` on the unpacked archive. Nothing is unpacked, so no path in the archive can lead anywhere.

    Raises InputError if the archive is damaged, encrypted, or has no identities.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._data = map_file(self.path)
        self._zip = is_zip(self.path)
        members = zip_members(self.path) if self._zip else tar_members(self.path, self._data)
        self.left_out = Counter[str]()  # files that are no images, by suffix
        found = list(members)
        taken = [member for member in found if self._takes(member)]
        images = _sorted_images(taken)
        self.left_out.update({OF_NOBODY: len(taken) - len(images)} if len(images) < len(taken) else {})
        names = sorted({name.partition("/")[0] for name, _ in images})
        if not names:
            raise InputError(
                f"{self.path}: holds no images in folders, but {list_kinds(self.left_out) or 'nothing'}; expected a"
                f" folder of images for each person."
            )
        self.class_names: Sequence[str] = self._named(found, len(names)) or names
        self.num_classes = len(names)
        number = {name: label for label, name in enumerate(names)}
        self.labels = np.array([number[name.partition("/")[0]] for name, _ in images], dtype=np.int64)
        self._names = PackedNames(name for name, _ in images)
        places = [(one.offset, one.size, one.packed_size, one.method, one.checksum) for _, one in images]
        self._places = np.array(places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[Record]:
        return read_each(indices, self._read_one)

    def _takes(self, member: Member) -> bool:
        """Whether a member is an image, as in a walk through the unpacked archive; counts it if it is none."""
        parts = _parts(member.name)
        if any(is_hidden(part) for part in parts if part != ".."):
            return False
        suffix, known = kind_of(parts[-1] if parts else "")
        if known is None:
            try:
                known = begins_as_image(self._content(member)[:BEGINNING_BYTES])
            except ValueError:
                known = False
        self.left_out.update([] if known else [suffix])
        return known

    def _named(self, members: list[Member], count: int) -> PackedNames | None:
        """The names that `marginface convert` wrote beside folders of numbers."""
        for member in members:
            if _parts(member.name)[-1:] == [CLASSES]:
                text = self._content(member).decode("utf-8", "surrogateescape")
                if names := names_in(text.splitlines(), count):
                    self.left_out -= Counter([".txt"])
                    return names
        return None

    def _content(self, member: Member) -> bytes:
        """The bytes of a member. Raises ValueError if they are damaged."""
        check_image(member)
        if self._zip:
            return zip_content(self._data, member)
        return self._data[member.offset : member.offset + member.size]

    def _read_one(self, index: int) -> Record:
        key = self._names[index]
        offset, size, packed_size, method, checksum = self._places[index].tolist()
        try:
            image = self._content(Member(key, offset, size, packed_size, method, checksum))
        except ValueError as error:
            raise InputError(
                f"{self.path}: record {index}, {key!r:.200}, byte {offset}, is damaged: {error}."
            ) from error
        return Record(image, int(self.labels[index]), key)


def _sorted_images(members: list[Member]) -> list[tuple[str, Member]]:
    """(path below the folders that all share, member) of the images, in the order of a walk through the folders."""
    images = [(_parts(member.name), member) for member in members]
    images.sort(key=lambda image: (image[0][:-1], image[0][-1]))
    shared = _shared(images[0][0][:-1], images[-1][0][:-1]) if images else 0
    return [("/".join(parts[shared:]), member) for parts, member in images if len(parts) > shared + 1]


def _shared(first: list[str], last: list[str]) -> int:
    """How many folders the first and the last image share, and so all between them; the last one is an identity."""
    shared = 0
    while shared < min(len(first), len(last)) - (first == last) and first[shared] == last[shared]:
        shared += 1
    return shared


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]
