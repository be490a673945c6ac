"""Writes InsightFace's verification files. Called by `convert`."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marginface.files import create_file


def write_bin(path: Path, images: Sequence[bytes], issame: np.ndarray) -> None:
    """Write `images`, 2P encoded ones, those of pair k at 2k and 2k + 1, and issame, bool (P,), to a new file."""
    with create_file(path) as temporary, temporary.open("wb") as file:
        pickle.dump((list(images), issame.tolist()), file, protocol=4)
