"""A detector and a model without any library: a face is a coloured square, a person is its colour."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from marginface.detection.base import Faces
from marginface.faces.template import ARCFACE_112, crop_face
from marginface.gallery.models import FaceModel
from marginface.gallery.photos import Eye

COLOURS = {"Ann": (220, 30, 30), "Bob": (30, 220, 30), "Eve": (30, 30, 220)}
STRANGER = (230, 230, 40)


def photograph(
    *people: tuple[tuple[int, int, int], int, int], size: int = 60, shape: tuple[int, int] = (120, 240)
) -> np.ndarray:
    """Grey, with textured squares: (colour, left, top) each."""
    image = np.full((*shape, 3), 128, np.uint8)
    random = np.random.default_rng(0)
    for colour, left, top in people:
        noise = random.integers(-12, 13, (size, size, 3))
        image[top : top + size, left : left + size] = np.clip(np.array(colour) + noise, 0, 255)
    return image


def save(path: Path, image: np.ndarray) -> Path:
    """RGB uint8 as a file without loss, if `path` ends in .png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def find_squares(image: np.ndarray) -> Faces:
    """The columns that are not grey, in runs."""
    spread = image.max(2).astype(int) - image.min(2) > 90
    columns = np.flatnonzero(spread.any(0))
    if not len(columns):
        return Faces.none()
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 3) + 1)
    boxes = []
    for run in runs:
        rows = np.flatnonzero(spread[:, run].any(1))
        boxes.append([run[0], rows[0], run[-1] + 1, rows[-1] + 1])
    array = np.array(boxes, np.float32)
    side = array[:, 2:] - array[:, :2]
    points = array[:, None, :2] + ARCFACE_112[None] / 112 * side[:, None]
    return Faces.sorted(array, points, np.ones(len(array)))


class Colours:
    """The mean colour, as a vector of length 3 around grey."""

    length, quality = 3, True

    def crop(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        return crop_face(image, points)

    def raw(self, chunks: Iterable[np.ndarray | Sequence[np.ndarray]], flip: bool = True) -> Iterator[np.ndarray]:
        for chunk in chunks:
            yield np.array([face[30:80, 30:80].mean((0, 1)) - 128 for face in chunk], np.float32).reshape(-1, 3)


MODEL = FaceModel("colours", "0123", Colours(), {1e-3: 0.9})
EYE = Eye(find_squares, MODEL)
