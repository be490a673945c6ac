"""samples.png: the training images as the network sees them, so that a mistake is visible at a glance."""

from pathlib import Path

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.files import replace_file
from marginface.loading.decode import decode
from marginface.loading.loader import Loader
from marginface.readers.base import Record
from marginface.training.mixing import MixedLoader
from marginface.untrusted import LARGEST_IMAGE, read_bytes

ROWS, COLUMNS = 8, 12


def write_samples(loader: Loader | MixedLoader, path: Path) -> None:
    """A row a person, one person's images side by side after augmentation; people drawn evenly from the set."""
    rows = [_row(loader, np.flatnonzero(loader.reader.labels == person)) for person in _people(loader)]
    write_png(path, np.concatenate(rows))


def _people(loader: Loader | MixedLoader) -> np.ndarray:
    counts = np.bincount(loader.reader.labels)
    several = np.flatnonzero(counts > 1)
    people = several if len(several) else np.flatnonzero(counts)
    shown: np.ndarray = people[np.linspace(0, len(people) - 1, min(ROWS, len(people))).astype(int)]
    return shown


def _row(loader: Loader | MixedLoader, indices: np.ndarray) -> np.ndarray:
    """COLUMNS images side by side; a person with fewer is shown again as in the next epoch."""
    size = loader.config.size
    row = np.zeros((size, COLUMNS * size, 3), np.uint8)
    for column in range(COLUMNS):
        epoch, position = divmod(column, len(indices))
        images = loader.load(epoch, indices[position : position + 1]).images
        if len(images):
            row[:, column * size : (column + 1) * size] = images[0]
    return row


def write_png(path: Path, image: np.ndarray) -> None:
    """RGB uint8 (H, W, 3)."""
    encoded, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert encoded
    with replace_file(path) as temporary:
        temporary.write_bytes(data.tobytes())


def read_png(path: Path) -> np.ndarray | None:
    """RGB uint8 (H, W, 3), or None where there is no picture."""
    try:
        return decode(Record(read_bytes(path, LARGEST_IMAGE), 0, str(path)))
    except (OSError, InputError):
        return None
