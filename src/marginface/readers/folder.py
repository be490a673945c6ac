"""Image folders: one subfolder an identity, the layout everybody has. Opened by `open_reader`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import Record
from marginface.readers.mapped import read_file
from marginface.readers.names import PackedNames

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm")


class FolderReader:
    """Reads `path/<identity>/<image>`; identities and images in lexicographic order, labels by identity.

    The order is that of torchvision's ImageFolder, on which index files such as AdaFace's rely. Subfolders
    without an image are no identities. A key is the image's path below `path`.

    Raises InputError if the folder is missing or has fewer than two identities.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(f"{self.path}: there is no such folder; give one with a subfolder for each identity.")
        identities, images, counts = _list_images(self.path)
        if len(identities) == 0:
            raise InputError(
                f"{self.path}: no images found; expected one subfolder for each identity"
                f" with {', '.join(IMAGE_SUFFIXES)} files in it."
            )
        if len(identities) == 1:
            raise InputError(f"{self.path}: holds one identity only ({identities[0]}); training needs two or more.")
        self.class_names: Sequence[str] = identities
        self.labels = np.repeat(np.arange(len(identities), dtype=np.int64), counts)
        self.num_classes = len(identities)
        self._images, self._root = images, os.fspath(self.path)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[Record]:
        return [self._read_one(int(index)) for index in indices]

    def _read_one(self, index: int) -> Record:
        key = self._images[index]
        try:
            image = read_file(f"{self._root}/{key}")
        except OSError as error:
            raise InputError(f"{self.path / key}: record {index} cannot be read: {error.strerror}.") from error
        return Record(image, int(self.labels[index]), key)


def holds_identities(path: Path) -> bool:
    """Whether some subfolder of `path` holds an image; stops at the first."""
    if not path.is_dir():
        return False
    return any(next(_images_below(path, folder), None) is not None for folder in _subfolders(path))


def _list_images(root: Path) -> tuple[PackedNames, PackedNames, list[int]]:
    """(identity names, image paths below root, number of images of each identity)."""
    identities: list[str] = []
    counts: list[int] = []

    def images() -> Iterator[str]:
        for identity in _subfolders(root):
            count = 0
            for image in _images_below(root, identity):
                count += 1
                yield image
            if count:
                identities.append(identity)
                counts.append(count)

    packed = PackedNames(images())
    return PackedNames(identities), packed, counts


def _subfolders(root: Path) -> list[str]:
    with os.scandir(root) as found:
        return sorted(entry.name for entry in found if not entry.name.startswith(".") and entry.is_dir())


def _images_below(root: Path, folder: str) -> Iterator[str]:
    """Paths below `root` of the images in `folder` and its subfolders, folder by folder."""
    images, inner = [], []
    with os.scandir(root / folder) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(IMAGE_SUFFIXES):
                images.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                inner.append(entry.name)
    yield from (f"{folder}/{name}" for name in sorted(images))
    for name in sorted(inner):
        yield from _images_below(root, f"{folder}/{name}")
