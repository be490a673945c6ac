"""Image folders: one subfolder an identity, the layout everybody has. Opened by `open_reader`."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import Record, read_each
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import IMAGE_SUFFIXES, OF_NOBODY, list_kinds, walk_images
from marginface.readers.mapped import read_file
from marginface.readers.names import CLASSES, PackedNames, read_names


class FolderReader:
    """Reads `path/<identity>/<image>`; identities and images in lexicographic order, labels by identity.

    The order is that of torchvision's ImageFolder, on which index files such as AdaFace's rely. Subfolders
    without an image are no identities. A key is the image's path below `path`. Where identities
    are folders of numbers, classes.txt may name them.

    Raises InputError if the folder is missing or has no identities, and for a symbolic link that leads out of it,
    unless `allow_outside`.
    """

    def __init__(self, path: str | os.PathLike[str], allow_outside: bool = False) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(f"{self.path}: there is no such folder; give one with a subfolder for each identity.")
        self.left_out = Counter[str]()  # files that are no image of anybody, by suffix
        bounds = Bounds(self.path, allow_outside=allow_outside)
        identities, images, counts = _list_images(self.path, bounds, self.left_out)
        if len(identities) == 0:
            raise InputError(
                f"{self.path}: no images found, but {list_kinds(self.left_out) or 'nothing'}; expected one subfolder"
                f" for each identity with {', '.join(IMAGE_SUFFIXES)} files in it."
            )
        bounds.check(self.path / CLASSES)
        names = read_names(self.path, len(identities))
        self.class_names: Sequence[str] = identities if names is None else names
        self.left_out -= Counter([] if names is None else [".txt"])
        self.labels = np.repeat(np.arange(len(identities), dtype=np.int64), counts)
        self.num_classes = len(identities)
        self._images, self._root = images, os.fspath(self.path)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[Record]:
        return read_each(indices, self._read_one)

    def _read_one(self, index: int) -> Record:
        key = self._images[index]
        try:
            image = read_file(f"{self._root}/{key}")
        except OSError as error:
            raise InputError(f"{self.path / key}: record {index} cannot be read: {error.strerror}.") from error
        return Record(image, int(self.labels[index]), key)


def holds_identities(path: Path, bounds: Bounds) -> bool:
    """Whether some subfolder of `path` holds an image; stops at the first."""
    if not path.is_dir():
        return False
    bounds.check(path)
    return any("/" in image for image in walk_images(path, bounds))


def _list_images(root: Path, bounds: Bounds, left_out: Counter[str]) -> tuple[PackedNames, PackedNames, list[int]]:
    """(identity names, image paths below root, number of images of each identity)."""
    identities: list[str] = []
    counts: list[int] = []

    def images() -> Iterator[str]:
        for image in walk_images(root, bounds, left_out):
            identity, slash, _ = image.partition("/")
            if not slash:
                left_out[OF_NOBODY] += 1
                continue
            if not identities or identities[-1] != identity:
                identities.append(identity)
                counts.append(0)
            counts[-1] += 1
            yield image

    packed = PackedNames(images())
    return PackedNames(identities), packed, counts
