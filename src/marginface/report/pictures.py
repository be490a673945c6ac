"""Pictures inside the page: JPEG data URIs of the worst pairs and of the training samples. Used by `page`."""

import base64
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.metrics.result import VerificationResult

PictureOf = Callable[[int], np.ndarray]
"""Image index of a benchmark -> RGB uint8 (H, W, 3)."""


def worst_pairs(result: VerificationResult, picture_of: PictureOf, same: bool, count: int = 12) -> list[dict[str, Any]]:
    """The `count` worst false rejects (same) or false accepts as pictures with captions, worst first."""
    return [
        {
            "score": f"{result.scores[pair]:.3f}",
            "sides": [
                {"source": jpeg_uri(picture_of(int(side))), "name": _name(result, int(side))}
                for side in (result.trials.first[pair], result.trials.second[pair])
            ],
        }
        for pair in result.worst(same, count)
    ]


def jpeg_uri(picture: np.ndarray, longest: int = 112, quality: int = 82) -> str:
    """`picture` RGB uint8 (H, W, 3), shrunk to `longest` pixels, as a data URI."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"a picture must be RGB uint8 (H, W, 3), not {picture.dtype} {picture.shape}")
    factor = longest / max(picture.shape[:2])
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _name(result: VerificationResult, image: int) -> str:
    return result.trials.keys[image] if result.trials.keys is not None else f"image {image}"
