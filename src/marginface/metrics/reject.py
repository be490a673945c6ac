"""Error-versus-reject curves: how far a quality score tells which comparisons to distrust. Called by `evaluate`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.metrics.roc import check_trials, roc_curve, tar_at_far

SHARES = np.arange(0, 0.98, 0.05)
"""Shares of the pairs left out, MagFace's grid."""


@dataclass(frozen=True)
class RejectCurve:
    """FNMR at one FMR on the pairs that remain, the ones of least quality left out.

    rejected: float64 (R,), share of all pairs left out. fnmr: float64 (R,); NaN where the remaining different
    pairs cannot support the FMR, or no same pair remains. genuines, impostors: int64 (R,), pairs behind each figure.
    """

    quality: str
    fmr: float
    fixed: bool
    rejected: np.ndarray
    fnmr: np.ndarray
    genuines: np.ndarray
    impostors: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists; an FNMR that cannot be given is None."""
        return {
            "quality": self.quality,
            "fmr": self.fmr,
            "threshold": "that of all pairs" if self.fixed else "set anew on the pairs that remain",
            "rejected": self.rejected.tolist(),
            "fnmr": [None if np.isnan(rate) else float(rate) for rate in self.fnmr],
            "same": self.genuines.tolist(),
            "different": self.impostors.tolist(),
        }


def reject_curve(
    scores: np.ndarray,
    same: np.ndarray,
    quality: np.ndarray,
    *,
    name: str = "embedding norm",
    fmr: float = 1e-3,
    fixed: bool = False,
    shares: np.ndarray = SHARES,
) -> RejectCurve:
    """The curve of `quality` (P,), which for a pair is the lesser of its two images'.

    scores: float (P,). same: bool (P,). fixed: keep the threshold that all pairs give `fmr` at; else it is set anew
    on the pairs that remain, as MagFace does. Raises InputError when all pairs together cannot support `fmr`.
    """
    scores, same = check_trials(scores, same)
    if quality.shape != scores.shape or not np.all(np.isfinite(quality)):
        raise InputError(f"{quality.shape} quality values, some perhaps not finite, do not fit {scores.shape} pairs")
    start = tar_at_far(roc_curve(scores, same), fmr)
    if start.threshold is None:
        raise InputError(f"FMR {fmr:g} {start.reason}")
    order = np.argsort(quality, kind="stable")
    rows = [
        _remaining(scores[kept], same[kept], fmr, start.threshold if fixed else None)
        for kept in (order[int(share * len(order)) :] for share in shares)
    ]
    fnmr, genuines, impostors = (np.array(column) for column in zip(*rows, strict=True))
    return RejectCurve(name, fmr, fixed, shares, fnmr, genuines, impostors)


def pair_quality(quality: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The lesser quality of each pair's two images: `quality` (N,) at first, second (P,)."""
    return np.asarray(np.minimum(quality[first], quality[second]))


def _remaining(scores: np.ndarray, same: np.ndarray, fmr: float, threshold: float | None) -> tuple[float, int, int]:
    genuines, impostors = int(np.sum(same)), int(np.sum(~same))
    if threshold is None and genuines and impostors:
        threshold = tar_at_far(roc_curve(scores, same), fmr).threshold
    if threshold is None or not genuines:
        return np.nan, genuines, impostors
    return float(np.mean(scores[same] < threshold)), genuines, impostors
