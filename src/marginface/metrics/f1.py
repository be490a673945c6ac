"""Precision, recall and F1: of pairs over a sweep of thresholds, and of names in a closed set. For `closed_set`."""

from dataclasses import dataclass

import numpy as np

from marginface.metrics.intervals import pair_weights
from marginface.metrics.roc import check_trials

SWEEP = np.arange(0, 0.30, 0.002)
"""Thresholds on the cosine of the VN-Celeb table."""


@dataclass(frozen=True)
class F1Sweep:
    """Rates of accepting `score > threshold`, float64 (T,) each; a precision of nothing accepted is 0."""

    thresholds: np.ndarray
    accuracy: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @property
    def best(self) -> int:
        """Index of the highest F1, the lowest threshold of equals."""
        return int(np.argmax(self.f1))


def f1_sweep(scores: np.ndarray, same: np.ndarray, thresholds: np.ndarray | None = None) -> F1Sweep:
    """Sweeps `thresholds`, by default all that tell the scores (P,) apart. same: bool (P,)."""
    scores, same = check_trials(scores, same)
    if thresholds is None:
        values = np.unique(scores)
        thresholds = np.concatenate([[values[0] - 1], values])
    accepted = [np.searchsorted(np.sort(scores[side]), thresholds, side="right") for side in (same, ~same)]
    hits, alarms = np.sum(same) - accepted[0], np.sum(~same) - accepted[1]
    precision = hits / np.maximum(hits + alarms, 1)
    recall = hits / np.sum(same)
    f1 = 2 * hits / (hits + alarms + np.sum(same))
    accuracy = (hits + np.sum(~same) - alarms) / len(same)
    return F1Sweep(thresholds, accuracy, precision, recall, f1)


def best_f1_replicates(
    scores: np.ndarray, same: np.ndarray, people: tuple[np.ndarray, np.ndarray], replicates: int = 1000, seed: int = 0
) -> np.ndarray:
    """Best F1 of each bootstrap replicate, float64 (replicates,), NaN where a replicate lacks one kind of pair.

    people: the person of each side, int (P,) from 0, drawn as for the intervals of verification. The threshold is
    found anew in each replicate; the share of same pairs is kept. One seed draws the same people for any scores, so
    differences between models are paired.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last pair of each run of equal scores
    own = same[order].astype(np.float32)
    parts = []
    for weights in pair_weights(people, len(scores), replicates, seed):
        weights = weights[:, order]
        hits = np.cumsum(weights * own, axis=1, dtype=np.float64)[:, ends]
        alarms = np.cumsum(weights * (1 - own), axis=1, dtype=np.float64)[:, ends]
        with np.errstate(invalid="ignore", divide="ignore"):
            accepted = hits / hits[:, -1:] * np.sum(same)
            falsely = alarms / alarms[:, -1:] * np.sum(~same)
        parts.append(np.max(2 * accepted / (accepted + falsely + np.sum(same)), axis=1))
    return np.concatenate(parts)


def macro_f1(truth: np.ndarray, named: np.ndarray) -> float:
    """Mean over the classes that occur in either of each class' F1. truth, named: int (n,)."""
    classes, numbers = np.unique(np.concatenate([truth, named]), return_inverse=True)
    real, given = numbers[: len(truth)], numbers[len(truth) :]
    counts = [np.bincount(part, minlength=len(classes)) for part in (real, given, real[real == given])]
    return float(np.mean(2 * counts[2] / (counts[0] + counts[1])))
