"""YuNet (Wu et al., 2023) through OpenCV, from an ONNX file that the user has: face_detection_yunet_2023mar.onnx."""

import re
from pathlib import Path

import cv2
import numpy as np

from marginface.detection.base import Faces
from marginface.errors import InputError
from marginface.untrusted import read_bytes

EXTERNAL = re.compile(rb"(\n|\x8a\x80*\0)(\x08|\x88\x80*\0)location")
"""In protobuf, however its numbers are spelt: where a tensor's weights lie. OpenCV would read any file."""


class YuNet:
    """Images longer than `longest` pixels are scaled down first: its time goes with the area."""

    def __init__(self, file: str | Path, threshold: float = 0.7, longest: int = 1280) -> None:
        if not Path(file).is_file():
            raise InputError(f"{file} is not there; give the path of YuNet's .onnx file")
        content = read_bytes(file)
        if EXTERNAL.search(content):
            raise InputError(f"{file} keeps its weights in another file; give YuNet's file with the weights inside")
        try:
            buffers = np.frombuffer(content, np.uint8), np.empty(0, np.uint8)
            self._network = cv2.FaceDetectorYN.create("onnx", *buffers, (320, 320), threshold)
        except cv2.error as error:
            raise InputError(f"{file} cannot be read as YuNet's ONNX network; get it again") from error
        self._longest = longest

    def __call__(self, image: np.ndarray) -> Faces:
        """See `Detector`."""
        scale = min(1.0, self._longest / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        self._network.setInputSize((small.shape[1], small.shape[0]))
        _, rows = self._network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        return faces_of(rows, scale)


def faces_of(rows: np.ndarray | None, scale: float) -> Faces:
    """OpenCV's (n, 15): left, top, width, height, five points, score, of an image scaled by `scale`."""
    if rows is None:
        return Faces.none()
    boxes = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4]]) / scale
    return Faces.sorted(boxes, rows[:, 4:14].reshape(-1, 5, 2) / scale, rows[:, 14])
