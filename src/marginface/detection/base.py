"""What a face detector is, and what it answers: boxes, five points, scores. Used by its adapters and their callers."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from marginface.errors import InputError
from marginface.filenames import utf8_name
from marginface.optional_imports import load_library


@dataclass(frozen=True)
class Faces:
    """Faces of one image, best first; all coordinates in its pixels, x before y.

    boxes: float32 (n, 4), left, top, right, bottom. points: float32 (n, 5, 2), left eye, right eye, nose, left and
    right mouth corner as seen in the image. scores: float32 (n,), in 0..1; those of two detectors do not compare.
    """

    boxes: np.ndarray
    points: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, rows: np.ndarray) -> "Faces":
        """Some of them: indices, or a bool a face."""
        return Faces(self.boxes[rows], self.points[rows], self.scores[rows])

    @classmethod
    def none(cls) -> "Faces":
        return cls(np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32))

    @classmethod
    def sorted(cls, boxes: np.ndarray, points: np.ndarray, scores: np.ndarray) -> "Faces":
        """Best first, as float32."""
        order = np.argsort(-scores, kind="stable")
        parts = (np.asarray(part, np.float32)[order] for part in (boxes, points, scores))
        return cls(*parts)


class Detector(Protocol):
    """Finds faces in RGB uint8 (H, W, 3). Callable from one thread at a time."""

    def __call__(self, image: np.ndarray) -> Faces: ...


def most_central(faces: Faces, height: int, width: int) -> int:
    """Whom a photograph is of: large and near the middle. The index; there must be at least one face."""
    boxes = faces.boxes
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 - [width / 2, height / 2]
    return int(np.argmax(area - 2 * (middle**2).sum(1)))


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float, of_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes that no better box overlaps by more than `overlap`, best first.

    The overlap of two boxes is intersection over union, with `of_smaller` intersection over the smaller of both.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        common = np.prod(np.maximum(high - low, 0), axis=1)
        whole = np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - common
        order = rest[common <= overlap * whole]
    return np.array(kept, np.int64)


def folder_of(module: str) -> Path | None:
    """Where an installed package keeps its files, without running it; None when it is not installed."""
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def onnx_session(file: str | Path) -> Any:
    """An onnxruntime session on the CPU. Raises InputError naming the file when it is missing or damaged."""
    runtime = load_library("onnxruntime")
    if not Path(file).is_file():
        raise InputError(f"{file} is not there; give the path of the network's .onnx file")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))  # 0: a thread a core
    try:
        with utf8_name(file) as name:
            return runtime.InferenceSession(name, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class of their own
        raise InputError(f"{file} cannot be read as an ONNX network ({str(error)[:120]}); get it again") from error
