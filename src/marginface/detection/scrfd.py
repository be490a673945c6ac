"""SCRFD (Guo et al., 2022) from an ONNX file that the user has, such as det_10g.onnx of InsightFace's buffalo_l."""

from pathlib import Path

import cv2
import numpy as np

from marginface.detection.base import Faces, onnx_session, suppress
from marginface.errors import InputError

STRIDES, ANCHORS = (8, 16, 32), 2


class Scrfd:
    """The image is scaled into a square of `side` pixels; outputs: scores, boxes, points, each of three strides."""

    def __init__(self, file: str | Path, side: int = 640, threshold: float = 0.5) -> None:
        self._session = onnx_session(file)
        outputs = len(self._session.get_outputs())
        if outputs != 3 * len(STRIDES):
            raise InputError(f"{file} has {outputs} outputs, not 9: give an SCRFD network with five points a face")
        fixed = self._session.get_inputs()[0].shape[2]
        self._side = fixed if isinstance(fixed, int) else side
        self._threshold = threshold

    def __call__(self, image: np.ndarray) -> Faces:
        """See `Detector`."""
        scale = self._side / max(image.shape[:2])
        small = cv2.resize(
            image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        small = small[: self._side, : self._side]
        square = np.zeros((self._side, self._side, 3), np.uint8)
        square[: small.shape[0], : small.shape[1]] = small
        x = ((square.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
        outputs = self._session.run(None, {self._session.get_inputs()[0].name: x})
        found = decode_outputs(outputs, self._side, self._threshold)
        return Faces(found.boxes / np.float32(scale), found.points / np.float32(scale), found.scores)


def decode_outputs(outputs: list[np.ndarray], side: int, threshold: float) -> Faces:
    """Nine outputs, scores (n, 1), distances (n, 4) and points (n, 10) of the three strides -> faces in the square.

    Distances from an anchor's middle to the four sides, and to the points, are in units of the stride; there are two
    anchors at each place, places row by row.
    """
    boxes, points, scores = [], [], []
    for level, stride in enumerate(STRIDES):
        score, sides, places = (outputs[level + 3 * part].reshape(-1, size) for part, size in enumerate((1, 4, 10)))
        good = np.flatnonzero(score[:, 0] >= threshold)
        row, column = np.divmod(good // ANCHORS, side // stride)
        middle = np.stack([column, row], 1) * stride
        boxes.append(np.hstack([middle - sides[good, :2] * stride, middle + sides[good, 2:] * stride]))
        points.append(middle[:, None] + places[good].reshape(-1, 5, 2) * stride)
        scores.append(score[good, 0])
    every = Faces.sorted(np.concatenate(boxes), np.concatenate(points), np.concatenate(scores))
    return every.at(suppress(every.boxes, every.scores, 0.4))
