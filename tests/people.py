"""A tiny set of people for tests: smooth random patterns, an image folder in LFW's naming."""

from pathlib import Path

import cv2
import numpy as np


def write_people(folder: Path, people: int = 24, images: int = 4, size: int = 112, seed: int = 0) -> Path:
    """folder/p00/p00_0001.jpg ...; images of one person are alike. Returns `folder`."""
    random = np.random.default_rng(seed)
    for person in range(people):
        name = f"p{person:02d}"
        (folder / name).mkdir(parents=True)
        base = random.integers(0, 256, (7, 7, 3))
        for number in range(images):
            small = np.clip(base + random.normal(0, 30, base.shape), 0, 255).astype(np.uint8)
            image = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / name / f"{name}_{number + 1:04d}.jpg"), image)
    return folder
