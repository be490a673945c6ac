"""Degraded copies of benchmark images: blur, JPEG and low resolution, as `evaluate --degrade` names them."""

from collections.abc import Callable

import cv2
import numpy as np

from marginface.errors import InputError

Degrade = Callable[[np.ndarray], np.ndarray]
"""RGB uint8 (H, W, 3) -> the same shape."""


def open_degrade(spec: str) -> Degrade:
    """From `blur:SIGMA` (Gaussian, pixels), `jpeg:QUALITY` (1 to 100) or `downscale:FACTOR` (area down, cubic up).

    Raises InputError for what is not understood, saying what is.
    """
    kind, _, value = spec.partition(":")
    try:
        amount = float(value)
        if kind == "blur" and 0 < amount <= 100:
            return lambda image: cv2.GaussianBlur(image, (0, 0), amount, borderType=cv2.BORDER_REFLECT_101)
        if kind == "jpeg" and 1 <= amount <= 100:
            return lambda image: _jpeg(image, int(amount))
        if kind == "downscale" and 1 < amount <= 100:
            return lambda image: _downscale(image, amount)
    except ValueError:
        pass
    raise InputError(f"degradation '{spec}' is not understood; give blur:SIGMA, jpeg:QUALITY or downscale:FACTOR")


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])


def _downscale(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    lowered = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(lowered, (width, height), interpolation=cv2.INTER_CUBIC)
