"""Five points a face: the unit they are written in, and the landmark files kept beside a list. For `lists`."""

import csv
import enum
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.containment import Bounds
from marginface.readers.list_line import NUMBER
from marginface.untrusted import read_lines


class Unit(enum.Enum):
    """What points are written in: pixels of the image, or shares of the image or of the box around the face."""

    PIXELS = enum.auto()
    IMAGE = enum.auto()
    BOX = enum.auto()


USUAL_EYE_DISTANCE = 0.4  # of the width of a face detector's box


def unit_without_box(points: np.ndarray) -> Unit:
    """Shares never exceed 1 by much, and some pixels always do. points: (N, 5, 2)."""
    return Unit.IMAGE if np.abs(points).max() <= 2 else Unit.PIXELS


def unit_with_box(points: np.ndarray, boxes: np.ndarray, rows: np.ndarray, sizes: np.ndarray) -> Unit:
    """MS-Celeb-1M and IMDB-Face write alike but mean shares of the box and of the image: the eyes tell.

    points (N, 5, 2), boxes (N, 4) as x, y, w, h; sizes (n, 2), width and height of the images in `rows` (n,).
    """
    if np.abs(points).max() > 2:
        return Unit.PIXELS
    apart = np.abs(points[rows, 1, 0] - points[rows, 0, 0])
    if_box = np.median(apart) if len(rows) else USUAL_EYE_DISTANCE
    if_image = np.median(apart * sizes[:, 0] / np.maximum(boxes[rows, 2], 1)) if len(rows) else np.inf
    of_image = abs(np.log(if_image / USUAL_EYE_DISTANCE + 1e-6)) < abs(np.log(if_box / USUAL_EYE_DISTANCE + 1e-6))
    return Unit.IMAGE if of_image else Unit.BOX


def points_beside(path: Path, root: Path, names: Sequence[str], bounds: Bounds) -> np.ndarray | None:
    """Points in pixels, float32 (len(names), 5, 2), from the landmark file of VGGFace2 or CelebA near the list.

    path: of the list. root: the folder that its images lie in. bounds: of the landmark file.
    None if there is no such file. Raises InputError if there is one, but not for these images.
    """
    for file in _landmark_files(path, root):
        if file.is_file():
            bounds.check(file)
            return _matched(file, names)
    return None


def _landmark_files(path: Path, root: Path) -> Iterator[Path]:
    part = next((part for part in ("train", "test") if part in path.name), "all")
    for folder in (path.parent, path.parent / "bb_landmark", path.parent.parent / "bb_landmark"):
        yield folder / f"loose_landmark_{part}.csv"
    if path.name.startswith("identity_CelebA"):
        for folder in (path.parent, path.parent / "Anno"):
            yield folder / f"list_landmarks{'_align' if 'align' in root.name else ''}_celeba.txt"


def _matched(file: Path, names: Sequence[str]) -> np.ndarray:
    """The points of `names`, whose order in the file does not matter."""
    rows: dict[bytes, int] = {}
    numbers = array("f")
    for key, values in _rows(file):
        if rows.setdefault(key, len(rows)) == len(numbers) // 10:
            numbers.extend(values)
    table = np.array(numbers, dtype=np.float32).reshape(-1, 5, 2)
    places = np.array([rows.get(_stem(name), -1) for name in names], dtype=np.int64)
    if (places < 0).any():
        name = names[int((places < 0).argmax())]
        raise InputError(f"{file}: has no points for {name:.200}; take the landmark file that belongs to the list.")
    return table[places]


def _rows(file: Path) -> Iterator[tuple[bytes, list[float]]]:
    """(image without suffix, ten numbers) of each row; the headers have none."""
    lines = read_lines(file, errors="surrogateescape", newline="")
    try:
        for row in csv.reader(lines) if file.suffix == ".csv" else map(str.split, lines):
            if len(row) == 11 and NUMBER.fullmatch(row[1]):
                yield _stem(row[0]), [float(value) for value in row[1:]]
    except InputError:
        raise  # is a ValueError, and says already what is wrong
    except (ValueError, csv.Error) as error:
        raise InputError(f"{file}: the points of an image are no numbers: {error}.") from error


def _stem(name: str) -> bytes:
    return name.removesuffix(".jpg").removesuffix(".png").encode("utf-8", "surrogateescape")
