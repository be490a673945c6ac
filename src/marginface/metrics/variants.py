"""Ten-fold figures as other trainers print them: MagFace's angle with the mean removed, OpenVINO's LFW report.

Kept apart from `verification` because no other figure depends on them. Called by `evaluate`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marginface.errors import InputError
from marginface.metrics.roc import trapezoid
from marginface.metrics.verification import FoldAccuracy, GridRoc, grid_accuracy


def magface_accuracy(
    embeddings: np.ndarray, first: np.ndarray, second: np.ndarray, same: np.ndarray, folds: Sequence[np.ndarray]
) -> tuple[FoldAccuracy, GridRoc]:
    """MagFace's `eval_1v1`: angle / pi after removing the other folds' mean embedding, on InsightFace's grid.

    embeddings: float (N, D) as they are, not normalised. `FoldAccuracy.thresholds` are shares of pi.
    """
    a, b = embeddings[first].astype(np.float64), embeddings[second].astype(np.float64)
    accuracies, thresholds = np.empty(len(folds)), np.empty(len(folds))
    tars, fars = [], []
    for number, fold in enumerate(folds):
        train = np.setdiff1d(np.arange(len(same)), fold)
        mean = np.mean(np.concatenate([a[train], b[train]]), axis=0)
        accuracy, rates = grid_accuracy(_angles(a - mean, b - mean), same, folds)
        accuracies[number], thresholds[number] = accuracy.accuracies[number], accuracy.thresholds[number]
        tars.append(rates.fold_tar[number])
        fars.append(rates.fold_far[number])
    return FoldAccuracy(accuracies, thresholds), GridRoc(rates.thresholds, np.array(tars), np.array(fars))


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between the rows of `a` and `b` as a share of pi, (P,)."""
    cosines = np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    angles: np.ndarray = np.arccos(np.clip(cosines, -1, 1)) / np.pi
    return angles


@dataclass(frozen=True)
class OpenvinoLfw:
    """What OpenVINO's `evaluate_lfw` reports; distances are 1 - cosine.

    same, different, fold_accuracies, thresholds: float64 (10,). far, tar: float64 (400,) at `cuts`.
    """

    same: np.ndarray
    different: np.ndarray
    thresholds: np.ndarray
    cuts: np.ndarray
    far: np.ndarray
    tar: np.ndarray

    @property
    def fold_accuracies(self) -> np.ndarray:
        return np.asarray(0.5 * (self.same + self.different))

    @property
    def auc(self) -> float:
        """Trapezoids over the points sorted by (FAR, TAR), continued level to FAR 1."""
        order = np.lexsort((self.tar, self.far))
        far, tar = self.far[order], self.tar[order]
        if far[-1] != 1:
            far, tar = np.append(far, 1.0), np.append(tar, tar[-1])
        return trapezoid(far, tar)

    def lines(self) -> list[str]:
        """The report's lines, as the trainer logs them."""
        return [
            f"Accuracy/Val_same_accuracy mean: {np.mean(self.same):.4f}",
            f"Accuracy/Val_diff_accuracy mean: {np.mean(self.different):.4f}",
            f"Accuracy/Val_accuracy mean: {np.mean(self.fold_accuracies):.4f}",
            f"Accuracy/Val_accuracy std dev: {np.std(self.fold_accuracies):.4f}",
            f"AUC: {self.auc:.4f}",
            f"Estimated threshold: {np.mean(self.thresholds):.4f}",
        ]

    def roc_lines(self) -> list[str]:
        """Lines of the trainer's ROC file: `tpr fpr`."""
        return [f"{tar} {far}" for tar, far in zip(self.tar, self.far, strict=True)]


def openvino_lfw(distances: np.ndarray, same: np.ndarray, folds: int = 10) -> OpenvinoLfw:
    """OpenVINO's LFW figures of `distances` (P,), 1 - cosine, and `same` (P,) bool.

    Each fold's threshold is the mean of the places where the histograms of the other folds' same and different
    distances cross, 0.5 where they do not. All rates divide by half the fold, as the reference does, so they mean
    something on balanced folds only. Raises InputError when folds would be shorter than two pairs.
    """
    count = len(distances)
    if count < 2 * folds:
        raise InputError(f"{count} pairs cannot be split into {folds} folds of at least two")
    bounds = [number * count // folds for number in range(folds + 1)]
    cuts = np.linspace(0.0, 4.0, 400)
    rows = []
    for low, high in itertools.pairwise(bounds):
        train = np.concatenate([np.arange(low), np.arange(high, count)])
        threshold = _histogram_crossing(distances[train][same[train]], distances[train][~same[train]])
        own, own_same, half = distances[low:high], same[low:high], (high - low) // 2
        accepted = own < threshold
        hits, rejections = np.sum(accepted & own_same) / half, np.sum(~accepted & ~own_same) / half
        below = [np.searchsorted(np.sort(own[kind]), cuts, side="left") for kind in (~own_same, own_same)]
        far, tar = (counts / (high - low) * 2 for counts in below)
        rows.append((hits, rejections, threshold, far, tar))
    hits, rejections, thresholds, fars, tars = (np.array(column) for column in zip(*rows, strict=True))
    return OpenvinoLfw(hits, rejections, thresholds, cuts, sum(fars) / folds, sum(tars) / folds)


def _histogram_crossing(genuine: np.ndarray, impostor: np.ndarray, bins: int = 60) -> float:
    own, edges = np.histogram(genuine, bins)
    other, _ = np.histogram(impostor, edges)
    crosses = (own[:-1] >= other[:-1]) & (own[1:] > 0.05) & (own[1:] <= other[1:])
    found = edges[1:-1][crosses]
    return float(np.mean(found)) if len(found) else 0.5
