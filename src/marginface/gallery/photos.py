"""Photographs to faces with vectors: decode, detect, crop, embed. Called by `people`, the commands and the web page."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from marginface.detection import Detector, Faces
from marginface.errors import InputError
from marginface.gallery.models import FaceModel
from marginface.loading.decode import decode
from marginface.readers.base import Record
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import IMAGE_SUFFIXES, walk_images
from marginface.untrusted import LARGEST_IMAGE, read_bytes

PICTURE = 96  # side of the small picture that is kept of an enrolled face


@dataclass(frozen=True)
class Seen:
    """The faces of one image: where they are, what was cut out, float32 (n, D) vectors and (n,) weights."""

    found: Faces
    crops: list[np.ndarray]
    vectors: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Eye:
    """A detector and a model: images in, vectors out."""

    detector: Detector
    model: FaceModel

    def see(self, image: np.ndarray, rows: np.ndarray | None = None) -> Seen:
        """RGB uint8 (H, W, 3) -> its faces, best first; only those at `rows` when given."""
        found = self.detector(image)
        return self.look(image, found if rows is None else found.at(rows))

    def look(self, image: np.ndarray, found: Faces) -> Seen:
        """The same for faces that were found already."""
        crops = [self.model.crop(image, points) for points in found.points]
        return Seen(found, crops, *self.model.embed(crops))


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph's file that was read already, as `read_photo` and `enrol` take it in place of a path."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


def read_photo(path: str | Path | Photograph) -> np.ndarray:
    """RGB uint8 (H, W, 3), turned as EXIF says. Raises InputError, one sentence, for all that cannot be read."""
    return decode_photo(read_file(path), path)


def read_file(path: str | Path | Photograph) -> bytes:
    """A photograph's file as it is."""
    if isinstance(path, Photograph):
        return path.data
    try:
        return read_bytes(path, LARGEST_IMAGE)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def decode_photo(data: bytes, path: str | Path | Photograph) -> np.ndarray:
    """Like `read_photo`, of bytes that were read from `path`."""
    return decode(Record(data, 0, str(path)))


def photos_in(path: str | Path, allow_outside: bool = False) -> Iterator[Path]:
    """The photograph itself, or all below a folder, sorted. Raises InputError when there are none.

    Also for a symbolic link that leads out of the folder, unless `allow_outside`.
    """
    path = Path(path)
    if not path.is_dir():
        yield path
        return
    paths = sorted(path / name for name in walk_images(path, Bounds(path, allow_outside=allow_outside)))
    if not paths:
        raise InputError(f"{path} holds no photographs ({', '.join(IMAGE_SUFFIXES)})")
    yield from paths


def small_picture(crop: np.ndarray) -> bytes:
    """JPEG of a face at PICTURE pixels, some 3 kB."""
    small = cv2.resize(crop, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA)
    return np.asarray(
        cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    ).tobytes()


def blur_of(crop: np.ndarray) -> float:
    """Variance of the Laplacian of a face at 112 pixels: below some 50 to 100 it is blurred (Pech-Pacheco, 2000)."""
    grey = cv2.cvtColor(cv2.resize(crop, (112, 112), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
