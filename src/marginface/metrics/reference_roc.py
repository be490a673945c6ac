"""The ROC points that the IJB scripts read TPR at FPR from, without sorting millions of scores. For `protocols.ijb`.

The scripts take the nearest of the points that scikit-learn's `roc_curve` keeps. Those are few: genuine scores, and
ties among impostors. Scores are counted in buckets; only buckets that decide something are sorted.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from marginface.metrics.roc import Roc, TarAtFar, check_trials, unsupported

SORTED = 1_000_000
"""Up to this many scores all are sorted."""
BUCKETS = 1 << 18
PART = 1_000_000
"""Scores that a thread works on at a time."""


def reference_roc(scores: np.ndarray, same: np.ndarray, fars: Sequence[float] = ()) -> Roc:
    """The points that scikit-learn's `roc_curve` keeps with its default `drop_intermediate=True`.

    scores: float (P,). same: bool (P,). Of more than SORTED scores, points that only tied impostors make are left out
    unless they may be the nearest to one of `fars`; they lie on level parts of the curve, which stays the same.
    Raises InputError for NaN or one class only.
    """
    scores, same = check_trials(scores, same)
    buckets = _Buckets.of(scores, same)
    wanted = buckets.deciding(fars)
    values, genuines = buckets.members(scores, same, wanted)
    ranked = np.sort(values)[::-1]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of equal scores
    thresholds = ranked[last]
    own = np.bincount(np.searchsorted(thresholds[::-1], genuines), minlength=len(thresholds))[::-1]
    steps = np.stack([np.diff(last, prepend=-1) - own, own], axis=1)  # (K, 2): different, same pairs at each threshold
    skipped = buckets.skipped(thresholds, wanted)
    # a point is dropped when the step to it and the step after it are alike; a skipped impostor is a step of its own
    following = np.append(steps[1:], [[-1, -1]], axis=0)
    following[:-1][skipped[1:] > skipped[:-1]] = 1, 0
    kept = np.any(steps != following, axis=1)
    kept[0] = True
    counts = np.cumsum(steps, axis=0) + np.stack([skipped, np.zeros_like(skipped)], axis=1)
    counts = np.concatenate([[[0, 0]], counts[kept]])
    thresholds = np.concatenate([[np.inf], thresholds[kept]])
    return Roc(thresholds, counts[:, 0], counts[:, 1], int(buckets.upto[-1]), len(genuines))


def nearest_tar(roc: Roc, far: float) -> TarAtFar:
    """TAR at the point of `roc` whose FAR is nearest to `far`, the larger FAR and TAR of equals: the IJB scripts' rule.

    The point's FAR may lie above `far`; below one false accept the figure is the reference's, marked by `reason`.
    """
    reason = None if far * roc.impostors * (1 + 1e-12) >= 1 else unsupported(far, roc.impostors)
    gaps = np.abs(roc.far - far)
    at = len(gaps) - 1 - int(np.argmin(gaps[::-1]))
    accepts, tar = int(roc.false_accepts[at]), float(roc.true_accepts[at] / roc.genuines)
    return TarAtFar(far, tar, float(roc.thresholds[at]), accepts, roc.impostors, roc.genuines, reason)


@dataclass(frozen=True)
class _Buckets:
    """Scores counted in buckets of equal width, the highest first; empty ones left out.

    number: int32 (P,), the bucket of each score. filled: int (B,), the buckets' numbers.
    own: int (B,), genuine scores in each. upto, before: int (B,), impostors up to its end, and before it.
    """

    number: np.ndarray
    high: float
    scale: float
    filled: np.ndarray
    own: np.ndarray
    upto: np.ndarray
    before: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, same: np.ndarray) -> "_Buckets":
        high, low = float(scores.max()), float(scores.min())
        with np.errstate(over="ignore", divide="ignore"):
            scale = float(np.float64(BUCKETS) / np.float64(high - low)) if len(scores) > SORTED else 0.0
        if not 0 < scale < np.inf:
            high, scale = 0.0, 0.0  # one bucket for all
        number = np.concatenate(_in_parts(len(scores), lambda part: _place(scores[part], high, scale)))
        counts = np.sum(_in_parts(len(scores), lambda part: np.bincount(number[part], minlength=BUCKETS + 1)), axis=0)
        own = np.bincount(number[same], minlength=BUCKETS + 1)
        filled = np.flatnonzero(counts)
        others = (counts - own)[filled]
        upto = np.cumsum(others)
        return cls(number, high, scale, filled, own[filled], upto, upto - others)

    def deciding(self, fars: Sequence[float]) -> np.ndarray:
        """bool (B,): buckets that hold points of the curve, or a point that may be the nearest to one of `fars`."""
        genuine = self.own > 0
        wanted = genuine.copy()
        wanted[:-1] |= genuine[1:]  # where a run of impostors ends
        wanted[[0, -1]] = True
        impostors = self.upto[-1]
        for far in fars:
            target = np.clip(far * impostors, 0, impostors)
            # no point farther than this is the nearest: the curve's ends and the genuine scores are points
            gaps = np.maximum(np.abs(self.upto - target), np.abs(self.before - target))[genuine]
            reach = min(target, impostors - target, float(gaps.min())) + 1
            inside = np.flatnonzero((self.upto >= target - reach) & (self.before <= target + reach))
            wanted[max(inside[0] - 1, 0) : inside[-1] + 2] = (
                True  # and the neighbours: their steps tell what is dropped
            )
        return wanted

    def members(self, scores: np.ndarray, same: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All scores in the wanted buckets, and the genuine ones of them."""
        chosen = np.zeros(BUCKETS + 1, bool)
        chosen[self.filled[wanted]] = True
        parts = _in_parts(len(scores), lambda part: scores[part][chosen.take(self.number[part])])
        return np.concatenate(parts), scores[same]

    def skipped(self, thresholds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """int (K,): impostors above each threshold that are in no wanted bucket."""
        number = _place(thresholds, self.high, self.scale)
        unwanted = np.where(wanted, 0, self.upto - self.before)
        counts: np.ndarray = np.cumsum(unwanted)[np.searchsorted(self.filled, number)]
        return counts


def _place(scores: np.ndarray, high: float, scale: float) -> np.ndarray:
    """The bucket of each score: rounding keeps the order, so a score in a later bucket is a lower one."""
    return np.asarray((high - scores) * scale, np.int32)


def _in_parts(count: int, work: Callable[[slice], np.ndarray]) -> list[np.ndarray]:
    """`work` on slices of `count` scores, in threads."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda start: work(slice(start, start + PART)), range(0, count, PART)))
