"""dlib's HOG face detector, with the 68 landmarks that `face_recognition_models` carries, reduced to five points."""

from pathlib import Path

import numpy as np

from marginface.detection.base import Faces, folder_of
from marginface.errors import InputError
from marginface.optional_imports import load_library

LANDMARKS = "shape_predictor_68_face_landmarks.dat"
FEATURES = [range(36, 42), range(42, 48), [30], [48], [54]]  # of the 68, in the order of our five points


class DlibDetector:
    """Finds upright faces of 80 pixels and more; with `upsample` 1 those of 40."""

    def __init__(self, upsample: int = 1) -> None:
        dlib = load_library("dlib")
        self._find, self._upsample = dlib.get_frontal_face_detector(), upsample
        self._shape = dlib.shape_predictor(str(models_folder() / LANDMARKS))

    def __call__(self, image: np.ndarray) -> Faces:
        """See `Detector`."""
        image = np.ascontiguousarray(image)
        found, scores, _ = self._find.run(image, self._upsample)
        if not found:
            return Faces.none()
        boxes = np.array([[box.left(), box.top(), box.right() + 1, box.bottom() + 1] for box in found])
        points = np.array([self._five(image, box) for box in found])
        return Faces.sorted(boxes, points, 1 / (1 + np.exp(-np.array(scores))))

    def _five(self, image: np.ndarray, box: object) -> np.ndarray:
        shape = self._shape(image, box)
        every = np.array([[part.x, part.y] for part in shape.parts()], np.float32)
        return np.array([every[list(feature)].mean(0) for feature in FEATURES])


def models_folder() -> Path:
    """Where dlib's networks lie. Raises InputError when the package is not installed."""
    folder = folder_of("face_recognition_models")
    if folder is None:
        raise InputError("face_recognition_models is not installed; pip install 'marginface[demo]'")
    return folder / "models"
