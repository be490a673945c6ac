"""Five points -> a face as recognition networks expect it: the similarity to ArcFace's template. For `align`."""

import cv2
import numpy as np

ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""x, y in a 112×112 image: left eye, right eye, nose, left and right mouth corner as seen (InsightFace)."""


def template(size: int) -> np.ndarray:
    """ArcFace's template for a square image: scaled, and for multiples of 128 moved as InsightFace does. (5, 2)."""
    if size % 128 == 0 and size % 112:
        scale = size / 128
        return ARCFACE_112 * scale + [8 * scale, 0]
    return ARCFACE_112 * (size / 112)


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that bring `points` (n, 2) closest to `target` (n, 2): float64 (2, 3).

    Least squares (Umeyama 1991) in the plane, without reflection, in closed form. Raises ValueError where all
    points coincide.
    """
    points, target = np.asarray(points, np.float64), np.asarray(target, np.float64)
    centre, goal = points.mean(0), target.mean(0)
    p, q = points - centre, target - goal
    spread = (p**2).sum()
    if not spread > 0:
        raise ValueError("all five points coincide")
    a = (p * q).sum() / spread
    b = (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / spread
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, goal - turn @ centre])


def crop_face(image: np.ndarray, points: np.ndarray, size: int = 112) -> np.ndarray:
    """RGB uint8 (H, W, 3) and its five points in pixels -> RGB uint8 (size, size, 3), bilinear, black outside."""
    matrix = similarity(points, template(size))
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
