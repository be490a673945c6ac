"""dlib's ResNet of 2017 (99.38 % on LFW by its author) as a face model: recognises people before one has trained.

Weights: `dlib_face_recognition_resnet_model_v1.dat` in the package face_recognition_models (public domain).
"""

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from marginface.detection.dlib_points import models_folder
from marginface.faces.template import similarity
from marginface.optional_imports import load_library

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
SIZE = 150
# our five points of dlib's mean face of 68 landmarks, in its get_face_chip of 150 pixels and padding 0.25
TEMPLATE = np.array([[47.5, 46.6], [100.5, 46.6], [74.0, 76.6], [50.4, 103.0], [97.6, 103.0]])


class DlibModel:
    """Faces are RGB uint8 (150, 150, 3), embeddings have 128 numbers, whose length does not tell quality."""

    name, length, quality = "dlib", 128, False

    def __init__(self) -> None:
        self._network = load_library("dlib").face_recognition_model_v1(str(models_folder() / WEIGHTS))
        self.weights = models_folder() / WEIGHTS

    def crop(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """RGB uint8 (H, W, 3) and five points (5, 2) -> the face as the network expects it."""
        matrix = similarity(points, TEMPLATE)
        return cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)

    def raw(self, chunks: Iterable[np.ndarray | Sequence[np.ndarray]], flip: bool = True) -> Iterator[np.ndarray]:
        """Batches of faces -> float32 (n, 128) each, not normalised; `flip` adds that of the mirror image."""
        for chunk in chunks:
            total = self._embedded(chunk)
            yield total + self._embedded([face[:, ::-1] for face in chunk]) if flip else total

    def _embedded(self, faces: Iterable[np.ndarray]) -> np.ndarray:
        batch = [np.ascontiguousarray(face) for face in faces]
        return np.array(self._network.compute_face_descriptor(batch), np.float32).reshape(len(batch), self.length)
