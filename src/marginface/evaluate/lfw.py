"""LFW from photographs and five points, aligned as the model takes them; OpenVINO's figures beside ours.

`ROOT` holds pairs.txt, lfw_landmark.txt (`Name/Name_0001.jpg`, ten numbers) and the photographs, in it or one below.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.evaluate.benchmark import Result, beside, split_words
from marginface.evaluate.embeddings import Embeddings
from marginface.evaluate.images import Align, Images
from marginface.evaluate.pairs import PairsBenchmark
from marginface.faces.template import ARCFACE_112, crop_face
from marginface.metrics.result import VerificationResult
from marginface.metrics.variants import openvino_lfw
from marginface.protocols.pairs import read_pairs
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import find_files
from marginface.readers.list_file import with_slashes
from marginface.readers.list_line import is_comment, parse_line
from marginface.untrusted import read_lines

OPENVINO_TEMPLATE = (ARCFACE_112 - [8, 0]) / [96, 112]
"""Points as shares of width and height: those of the older 112x96 crop, on a square: faces come out wider."""
OPENVINO_SIDE = 400
"""Side of the crop that OpenVINO's trainer makes of an LFW photograph before it scales it to the network's input."""


@dataclasses.dataclass(frozen=True)
class LfwBenchmark(PairsBenchmark):
    """A pairs benchmark whose results also carry OpenVINO's figures."""

    def score(self, embeddings: Embeddings, model: str, replicates: int = 1000) -> list[Result]:
        result = self.pairs.score(embeddings.fused, model, xnorm=embeddings.xnorm, replicates=replicates)
        return [dataclasses.replace(result, figures=openvino_figures(result))]


def openvino_figures(result: VerificationResult) -> dict[str, float]:
    """What OpenVINO's `evaluate_lfw` logs, under names for people; the threshold is on 1 - cosine."""
    if result.distances is None:
        raise InputError(f"{result.benchmark} has no folds, which OpenVINO's figures need")
    found = openvino_lfw(result.distances / 2, result.trials.same, len(result.trials.folds))
    return {
        "OpenVINO same accuracy": float(np.mean(found.same)),
        "OpenVINO diff accuracy": float(np.mean(found.different)),
        "OpenVINO mean accuracy": float(np.mean(found.fold_accuracies)),
        "OpenVINO accuracy std": float(np.std(found.fold_accuracies)),
        "OpenVINO AUC": found.auc,
        "OpenVINO estimated threshold": float(np.mean(found.thresholds)),
    }


def open_lfw(rest: str, resize: bool, allow_outside: bool) -> LfwBenchmark:
    """`ROOT,pairs=FILE,landmarks=FILE,align=openvino|arcface`; see the caption."""
    root, options = split_words(rest, ["pairs", "landmarks", "align"])
    align = options.get("align", "")
    if align not in ALIGNMENTS:
        raise InputError(f"align is one of {', '.join(filter(None, ALIGNMENTS))}, not '{align}'")
    listed, landmarks = (
        beside(root, options.get(name), usual, allow_outside)
        for name, usual in (("pairs", "pairs.txt"), ("landmarks", "lfw_landmark.txt"))
    )
    points_of = read_points(landmarks)
    photographs = _photographs(root, points_of)
    Bounds(root, allow_outside=allow_outside).check(photographs)
    pairs = read_pairs(listed, photographs, name="lfw", allow_outside=allow_outside)
    if missing := [key for key in pairs.keys if key not in points_of]:
        raise InputError(
            f"{landmarks} has no points for {len(missing)} of the {len(pairs.keys)} photographs in {listed} "
            f"(first: {missing[0]}); add them or remove their pairs"
        )
    pairs = dataclasses.replace(pairs, notes=(*pairs.notes, NOTES[align]))
    points = np.array([points_of[key] for key in pairs.keys])
    paths = [Path(str(path)) for path in pairs.images]
    return LfwBenchmark(pairs, Images.of_files("lfw", pairs.keys, paths, resize, points, ALIGNMENTS[align]))


def read_points(landmarks: Path) -> dict[str, np.ndarray]:
    """`Name/Name_0001.jpg` -> float64 (5, 2), pixels. Raises InputError naming the line that is not understood."""
    points: dict[str, np.ndarray] = {}
    for number, text in enumerate(_lines(landmarks), start=1):
        if number == 1 and re.search(r"\d", text) is None:
            continue  # a header
        try:
            line = parse_line(text)
        except ValueError as error:
            if is_comment(text):
                continue
            raise InputError(f"{landmarks} line {number}: {error}") from error
        if line is None or line.points is None:
            if not is_comment(text) and (line is not None or "|" in text):
                raise InputError(f"{landmarks} line {number}: expected a picture and ten numbers, found '{text[:60]}'")
            continue
        key, own = (
            "/".join(PurePosixPath(with_slashes(line.path)).parts[-2:]),
            np.array(line.points, np.float64).reshape(5, 2),
        )
        if not np.array_equal(points.setdefault(key, own), own):
            raise InputError(f"{landmarks} line {number}: {key} is there twice, with other points; keep one line")
    if not points:
        raise InputError(f"{landmarks} holds no points; give a file of lines 'Name/Name_0001.jpg x1 y1 ... x5 y5'")
    return points


def _lines(landmarks: Path) -> Iterator[str]:
    try:
        yield from read_lines(landmarks)
    except OSError as error:
        raise InputError(f"{landmarks} cannot be read as text: {error}; give the file with landmarks=FILE") from error


def arcface_crop(image: np.ndarray, points: np.ndarray, size: int, template: str = "") -> np.ndarray:
    """`crop_face` to ArcFace's template, whatever the model's."""
    return crop_face(image, points, size)


def openvino_crop(image: np.ndarray, points: np.ndarray, size: int, template: str = "") -> np.ndarray:
    """RGB uint8 (H, W, 3) and five points (5, 2) -> RGB uint8 (size, size, 3), as OpenVINO's trainer crops LFW.

    template: of the model; ignored.
    The turn that brings both sets of points closest, scaled by the ratio of their spreads (not by least squares);
    nearest pixel into 400x400, then bilinear to the network's size. Raises ValueError where all points coincide.
    """
    target = OPENVINO_TEMPLATE * OPENVINO_SIDE
    centre, goal = target.mean(0), points.mean(0)
    p, q = target - centre, points - goal
    if not np.any(q):
        raise ValueError("all five points coincide")
    angle = np.arctan2(np.sum(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]), np.sum(p * q))
    scale = np.std(q) / np.std(p)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([turn, goal - turn @ centre])
    side = (OPENVINO_SIDE, OPENVINO_SIDE)
    crop = cv2.warpAffine(image, matrix, side, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)


ALIGNMENTS: dict[str, Align] = {"": crop_face, "openvino": openvino_crop, "arcface": arcface_crop}
NOTES = {
    "": "aligned to the model's own template",
    "openvino": "aligned as OpenVINO's trainer does, whatever the model's template",
    "arcface": "aligned to ArcFace's template, whatever the model's",
}


def _photographs(root: Path, points_of: dict[str, np.ndarray]) -> Path:
    """The folder of a folder a person, found by the first photograph that has points and exists."""
    folders = [root, *(path for path in find_files(root, "*") if path.is_dir())] if root.is_dir() else []
    for key in points_of:
        for folder in folders:
            if (folder / key).is_file():
                return folder
    raise InputError(f"{root} and the folders in it hold none of the {len(points_of)} photographs with points")
