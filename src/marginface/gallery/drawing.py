"""Boxes and names drawn on a picture. Called by the commands, video and the web page."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.files import create_file

KNOWN, STRANGER = (40, 160, 60), (200, 60, 40)


def draw_faces(image: np.ndarray, boxes: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """A copy of RGB uint8 (H, W, 3) with boxes (n, 4) and a label under each; other letters than ASCII become '?'."""
    picture = image.copy()
    thick = max(1, round(max(image.shape[:2]) / 400))
    scale = max(0.4, max(image.shape[:2]) / 1200)
    for box, label in zip(np.rint(boxes).astype(int), labels, strict=True):
        left, top, right, bottom = (int(side) for side in box)
        colour = STRANGER if label.startswith("unknown") else KNOWN
        cv2.rectangle(picture, (left, top), (right, bottom), colour, thick)
        text = label.encode("ascii", "replace").decode()
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        x = max(0, min(left, picture.shape[1] - width))
        y = min(bottom + height + base, picture.shape[0] - base)
        cv2.rectangle(picture, (x, y - height - base), (x + width, y + base), colour, -1)
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick, cv2.LINE_AA)
    return picture


def write_photo(path: Path, image: np.ndarray, overwrite: bool = False) -> None:
    """Write RGB uint8 (H, W, 3) as JPEG. Raises InputError for a file that exists, unless `overwrite` is set."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise InputError(f"{path} cannot be written as JPEG")
    with create_file(path, overwrite) as temporary:
        temporary.write_bytes(np.asarray(data).tobytes())
