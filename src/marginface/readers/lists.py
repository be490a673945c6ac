"""Image lists: a text file that names images, people and often five points. Opened by `open_reader`."""

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import Record, read_each
from marginface.readers.image_size import image_size
from marginface.readers.list_file import list_lines
from marginface.readers.list_line import NUMBER
from marginface.readers.list_points import Unit, points_beside, unit_with_box, unit_without_box
from marginface.readers.listed_images import ListedImages, find_root, nearby
from marginface.readers.names import PackedNames, number_labels


class ListReader:
    """Reads the images that a list names, in its order; the forms are those of `list_file`.

    Identities are in the order of their numbers, else of their names or folders; labels have no gaps, and
    `class_names` tells what was written. Points come from the list, or from the
    landmark file that VGGFace2 and CelebA keep beside it, and are given in pixels.

    Images are looked for as `listed_images` says, and lie below one folder.

    Raises InputError, naming the line, if the list is damaged, or its images are missing, and for
    names that lead out of the folder of the images, unless `allow_outside`.
    """

    def __init__(self, path: str | os.PathLike[str], allow_outside: bool = False) -> None:
        self.path = Path(path)
        content = _read_list(self.path, allow_outside)
        self.labels = content.labels
        self.class_names: Sequence[str] = content.class_names
        self.num_classes = len(self.class_names)
        self._names = content.paths
        self._images = ListedImages(self.path, self._names, allow_outside)
        self._points, self._unit = content.points, Unit.PIXELS
        if self._points is None:
            self._points = points_beside(self.path, self._images.root, self._names, nearby(self.path, allow_outside))
        elif content.boxes is None:
            self._unit = unit_without_box(self._points)
        else:
            self._unit = unit_with_box(self._points, content.boxes, *self._sample_sizes())
            if self._unit is Unit.BOX:
                self._points = content.boxes[:, None, :2] + self._points * content.boxes[:, None, 2:]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[Record]:
        return read_each(indices, self._read_one)

    def _read_one(self, index: int) -> Record:
        image = self._images.read(index)
        points = None if self._points is None else self._points[index]
        if points is not None and self._unit is Unit.IMAGE:
            try:
                points = points * np.array(image_size(image)[::-1], dtype=np.float32)
            except ValueError:
                points = None  # an unreadable image, about which the decoder will complain
        return Record(image, int(self.labels[index]), self._names[index], points)

    def _sample_sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, sizes): width and height of some images, float32 (n, 2)."""
        rows, sizes = [], []
        for index in np.unique(np.linspace(0, len(self) - 1, 32).astype(int)):
            try:
                sizes.append(image_size(self._images.read(int(index)))[::-1])
                rows.append(index)
            except ValueError:
                continue  # damaged; the others will do
        return np.array(rows, dtype=np.int64), np.array(sizes, dtype=np.float32).reshape(-1, 2)


@dataclass
class _Content:
    """What a list says, in its order; points and boxes as written."""

    paths: PackedNames
    class_names: PackedNames
    labels: np.ndarray  # int64 (N,)
    points: np.ndarray | None  # float32 (N, 5, 2)
    boxes: np.ndarray | None  # float32 (N, 4)


def _read_list(path: Path, allow_outside: bool) -> _Content:
    near = nearby(path, allow_outside)
    written: dict[str, int] = {}  # label as written -> number in order of appearance
    numbers, points, boxes = array("q"), array("f"), array("f")

    def paths() -> Iterator[str]:
        for line in list_lines(path, lambda name: find_root(path, name, near) is not None):
            numbers.append(written.setdefault(line.label, len(written)))
            points.extend(line.points or ())
            boxes.extend(line.box or ())
            yield line.path

    packed = PackedNames(paths())
    if len(packed) == 0:
        raise InputError(f"{path}: the list names no images.")
    labels, names = number_labels(_whole(path, list(written)), np.array(numbers))
    return _Content(packed, PackedNames(names), labels, _table(points, (-1, 5, 2)), _table(boxes, (-1, 4)))


def _whole(path: Path, written: list[str]) -> list[str]:
    """Labels as written; if all are numbers without a fraction (`3.0` as im2rec has it)."""
    if not all(NUMBER.fullmatch(label) for label in written):
        return written
    for label in written:
        value = float(label)
        if not 0 <= value < 1 << 53 or value != int(value):
            raise InputError(f"{path}: the label {label:.40} is not a whole number from 0 on.")
    return [label if label.isdecimal() else f"{float(label):.0f}" for label in written]


def _table(numbers: "array[float]", shape: tuple[int, ...]) -> np.ndarray | None:
    return np.array(numbers, dtype=np.float32).reshape(shape) if numbers else None
