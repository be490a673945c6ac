"""The exact ROC of similarity scores (every tie respected) and what is read off it: AUC, EER, TAR at a FAR.

Scores are similarities: a pair is accepted when `score >= threshold`. In ISO/IEC 19795 terms FAR is FMR
(false match rate), 1 - TAR is FNMR (false non-match rate). Called by `result`, protocols.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marginface.errors import InputError


@dataclass(frozen=True)
class Roc:
    """Counts of accepted pairs at every distinct score, from accepting nothing to accepting everything.

    thresholds: float64 (K,), falling; the first is +inf (nothing accepted), then each distinct score.
    false_accepts, true_accepts: int64 (K,), different / same pairs with score >= threshold.
    impostors, genuines: number of different / same pairs.
    """

    thresholds: np.ndarray
    false_accepts: np.ndarray
    true_accepts: np.ndarray
    impostors: int
    genuines: int

    @property
    def far(self) -> np.ndarray:
        """False accept rate (FMR) at each threshold, rising from 0 to 1."""
        return self.false_accepts / self.impostors

    @property
    def tar(self) -> np.ndarray:
        """True accept rate (1 - FNMR) at each threshold, rising from 0 to 1."""
        return self.true_accepts / self.genuines

    @property
    def auc(self) -> float:
        """Area under the ROC = P(genuine score > impostor score) + half the ties, exact in integers."""
        steps = np.diff(self.false_accepts)
        doubled = int(np.sum(steps * (self.true_accepts[1:] + self.true_accepts[:-1]), dtype=np.int64))
        return doubled / (2 * self.impostors * self.genuines)


@dataclass(frozen=True)
class TarAtFar:
    """TAR at the loosest threshold whose FAR does not exceed `far`, and the number of trials behind it.

    `reason` says why the impostor trials cannot support the FAR; `tar` and `threshold` are then None, or a
    reference's figure to be read as marked.
    """

    far: float
    tar: float | None
    threshold: float | None
    false_accepts: int
    impostors: int
    genuines: int
    reason: str | None = None


def roc_curve(scores: np.ndarray, same: np.ndarray) -> Roc:
    """Exact ROC of `scores` (P,) float and `same` (P,) bool. Raises InputError for NaN or one class only."""
    scores, same = check_trials(scores, same)
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])
    values = np.unique(scores)[::-1]
    accepted = [len(side) - np.searchsorted(side, values, side="left") for side in (impostor, genuine)]
    false_accepts, true_accepts = (np.concatenate([[0], counts]).astype(np.int64) for counts in accepted)
    return Roc(np.concatenate([[np.inf], values]), false_accepts, true_accepts, len(impostor), len(genuine))


def check_trials(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`scores` as float64 and `same` as bool, both (P,), or InputError saying what is wrong and how often."""
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same).astype(bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise InputError(f"{scores.shape} scores do not match {same.shape} same/different flags: give one flag a score")
    if bad := int(np.count_nonzero(~np.isfinite(scores))):
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(f"{bad} of {len(scores)} scores are not finite (first: pair {first}); check the embeddings")
    genuines = int(np.count_nonzero(same))
    if genuines in (0, len(same)):
        missing = "same" if genuines == 0 else "different"
        raise InputError(f"none of the {len(same)} pairs is a '{missing}' pair; a ROC needs both kinds")
    return scores, same


def equal_error_rate(roc: Roc) -> tuple[float, float]:
    """(EER, threshold): where the polyline through the ROC's points crosses FAR = 1 - TAR.

    The threshold is the score of the ROC point closest to the crossing, so it can be used as it is.
    """
    far, tar = roc.far, roc.tar
    right = int(np.argmax(far + tar >= 1))  # the last point is (1, 1): there is always one
    rate = crossing(far[right - 1 : right + 1], tar[right - 1 : right + 1])
    gaps = np.abs(far[[right - 1, right]] + tar[[right - 1, right]] - 1)
    nearest = right if gaps[1] <= gaps[0] or right == 1 else right - 1
    return rate, float(roc.thresholds[nearest])


def crossing(far: np.ndarray, tar: np.ndarray) -> float:
    """FAR at which the segment between two ROC points, (2,) each, meets FAR = 1 - TAR."""
    gap = 1 - far - tar
    if gap[0] == gap[1]:
        return float(far[0])
    return float(far[0] + (far[1] - far[0]) * gap[0] / (gap[0] - gap[1]))


def trapezoid(x: np.ndarray, y: np.ndarray) -> float:
    """Area under the polyline through the points (x, y)."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def tar_at_far(roc: Roc, far: float) -> TarAtFar:
    """TAR at the loosest threshold with FAR <= `far`; marked, not extrapolated, below one false accept."""
    if not 0 < far <= 1:
        raise InputError(f"a FAR must lie in (0, 1], not {far}")
    # a hair above, because 0.001 * 3000 may fall just short of 3 in binary
    allowed = int(np.floor(far * roc.impostors * (1 + 1e-12)))
    if allowed < 1:
        return TarAtFar(far, None, None, 0, roc.impostors, roc.genuines, unsupported(far, roc.impostors))
    at = int(np.searchsorted(roc.false_accepts, allowed, side="right")) - 1
    tar = float(roc.true_accepts[at] / roc.genuines)
    accepts = int(roc.false_accepts[at])
    return TarAtFar(far, tar, float(roc.thresholds[at]), accepts, roc.impostors, roc.genuines)


def unsupported(far: float, impostors: int) -> str:
    """Why so few different pairs cannot support `far`."""
    return f"needs at least {int(np.ceil(1 / far - 1e-9)):,} different pairs, there are {impostors:,}"


def tars_at_fars(roc: Roc, fars: Sequence[float]) -> list[TarAtFar]:
    """`tar_at_far` at each of `fars`."""
    return [tar_at_far(roc, far) for far in fars]


def corner_points(roc: Roc, limit: int = 400) -> np.ndarray:
    """Indices into `roc` of at most about `limit` points that draw the same curve on a logarithmic FAR axis.

    Keeps the ends, the corners, and of too many corners an even choice over log FAR and over TAR.
    """
    turns = np.diff(roc.false_accepts, 2).astype(bool) | np.diff(roc.true_accepts, 2).astype(bool)
    corners = np.flatnonzero(np.concatenate([[True], turns, [True]]))
    if len(corners) <= limit:
        return corners
    low = np.log(0.5 / roc.impostors)
    log_far = np.log(np.maximum(roc.far[corners], 0.5 / roc.impostors)) / -low
    path = np.concatenate([[0], np.cumsum(np.abs(np.diff(log_far)) + np.abs(np.diff(roc.tar[corners])))])
    steps = np.searchsorted(path, np.linspace(0, path[-1], limit))
    kept: np.ndarray = corners[np.unique(np.minimum(steps, len(corners) - 1))]
    return kept
