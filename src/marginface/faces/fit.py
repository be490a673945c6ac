"""How well five points fit a template, in numbers that are large where the points are likely wrong. For `align`."""

from dataclasses import dataclass

import numpy as np

from marginface.faces.template import face_shape, similarity, template


@dataclass(frozen=True)
class Fit:
    """One aligned face.

    residual: root mean square distance of the turned and scaled points from the template, as a share of the height.
    outside: share of the face that lies beyond the photograph, and is black.
    enlarged: pixels of the face for each of the photograph, along a side.
    """

    residual: float
    outside: float
    enlarged: float


def fit(points: np.ndarray, photograph: tuple[int, int], size: int, name: str = "arcface") -> Fit:
    """points: (5, 2) in pixels. photograph: its height and width. Raises ValueError where all points coincide."""
    target = template(size, name)
    matrix = similarity(points, target)
    moved = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    residual = float(np.sqrt(((moved - target) ** 2).sum(1).mean())) / size
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    rows, columns = (np.linspace(0, side - 1, 24) for side in face_shape(size, name))
    grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    back = (grid - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    inside = (back >= -0.5) & (back <= np.array(photograph[::-1]) - 0.5)
    return Fit(residual, float(1 - inside.all(1).mean()), scale)
