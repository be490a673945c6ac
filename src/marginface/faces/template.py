"""Five points -> a face as recognition networks expect it: the similarity to a published template. For `align`."""

import cv2
import numpy as np

from marginface.errors import InputError

ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""x, y in a 112×112 image: left eye, right eye, nose, left and right mouth corner as seen (InsightFace)."""

TEMPLATES = ("arcface", "arcface96", "openvino")


def face_shape(size: int, name: str = "arcface") -> tuple[int, int]:
    """(height, width) in pixels of a face of this height; all are square but arcface96, whose ratio is 112 : 96.

    Raises InputError for an unknown template, and for a height that has no whole width.
    """
    if name not in TEMPLATES:
        raise InputError(f"{name} is no template; choose {', '.join(TEMPLATES)}.")
    if size < 8 or (name == "arcface96" and size * 96 % 112):
        raise InputError(f"size {size}: give 8 or more, and for arcface96 a height that 7 divides, such as 112.")
    return size, size * 96 // 112 if name == "arcface96" else size


def template(size: int, name: str = "arcface") -> np.ndarray:
    """Where the five points belong in a face of height `size`: x, y in pixels, float64 (5, 2).

    arcface: scaled from 112×112, and for multiples of 128 moved as InsightFace does. arcface96: the narrower
    original of SphereFace and CosFace, the same points 8 pixels further left. openvino: the shares of height and width
    that OpenVINO's trainer aligns to, in which faces are wider than in ArcFace's.
    """
    face_shape(size, name)
    if name == "openvino":
        return (ARCFACE_112 - [8, 0]) / [96, 112] * size
    if name == "arcface96":
        return (ARCFACE_112 - [8, 0]) * (size / 112)
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


def crop_face(image: np.ndarray, points: np.ndarray, size: int = 112, name: str = "arcface") -> np.ndarray:
    """RGB uint8 (H, W, 3) and its five points in pixels -> RGB uint8 (*face_shape, 3), bilinear, black outside."""
    height, width = face_shape(size, name)
    matrix = similarity(points, template(size, name))
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
