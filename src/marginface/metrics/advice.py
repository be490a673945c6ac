"""Which threshold to use: read off the ROC of a finished evaluation. Called by `marginface threshold`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.metrics.binomial import upper_bound
from marginface.metrics.roc import Roc, tar_at_far


@dataclass(frozen=True)
class ThresholdAdvice:
    """Accept at cosine similarity >= threshold. far: what was asked for; measured: what this threshold had.

    highest_far: upper end of the 95 % interval of the measured FAR (Clopper-Pearson's, of independent trials).
    """

    threshold: float
    far: float
    measured: float
    highest_far: float
    tar: float
    impostors: int
    genuines: int
    benchmark: str
    model: str

    def to_json(self) -> dict[str, Any]:
        """What is stored with a model."""
        return dict(vars(self))


def advise_threshold(result: Mapping[str, Any], far: float) -> ThresholdAdvice:
    """Advice from one result as `VerificationResult.to_json` wrote it.

    Raises InputError when its different pairs cannot support `far`, or when it holds no ROC.
    """
    try:
        roc, benchmark, model = _roc(result), str(result["benchmark"]), str(result["model"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"this result holds no ROC to read a threshold from ({error!r}); evaluate again") from error
    found = tar_at_far(roc, far)
    if found.tar is None or found.threshold is None:
        raise InputError(f"FAR {far:g} on {benchmark} {found.reason}; ask for a higher FAR or use more pairs")
    if not np.isfinite(found.threshold):
        raise InputError(f"even the highest score of {benchmark} is accepted too often for FAR {far:g}")
    return ThresholdAdvice(
        threshold=found.threshold,
        far=far,
        measured=found.false_accepts / found.impostors,
        highest_far=upper_bound(found.false_accepts, found.impostors),
        tar=found.tar,
        impostors=found.impostors,
        genuines=found.genuines,
        benchmark=benchmark,
        model=model,
    )


def _roc(result: Mapping[str, Any]) -> Roc:
    points = result["roc"]
    roc = Roc(
        thresholds=np.array([np.inf, *points["thresholds"]], np.float64),
        false_accepts=np.array([0, *points["false_accepts"]], np.int64),
        true_accepts=np.array([0, *points["true_accepts"]], np.int64),
        impostors=int(result["pairs"]["different"]),
        genuines=int(result["pairs"]["same"]),
    )
    shapes = {array.shape for array in (roc.thresholds, roc.false_accepts, roc.true_accepts)}
    if len(shapes) > 1 or np.any(np.diff(roc.false_accepts) < 0) or min(roc.impostors, roc.genuines) < 1:
        raise ValueError("its points do not fit together")
    return roc
