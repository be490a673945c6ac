"""One model on one pairs benchmark: every figure that table, JSON and report show. Built by `protocols`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.metrics.intervals import Interval, VerificationIntervals, verification_intervals
from marginface.metrics.roc import (
    Roc,
    TarAtFar,
    check_trials,
    corner_points,
    equal_error_rate,
    roc_curve,
    tars_at_fars,
)
from marginface.metrics.verification import (
    FoldAccuracy,
    ValAtFar,
    check_embeddings,
    exact_accuracy,
    grid_accuracy,
    squared_distances,
    val_at_far,
)

FARS = (1e-1, 1e-2, 1e-3)
"""False accept rates reported unless told otherwise."""
KEPT_POINTS = 1000
"""Points of the ROC in the JSON."""


@dataclass(frozen=True)
class Trials:
    """The comparisons of a benchmark.

    first, second: int (P,), image (or template) of each side. same: bool (P,).
    folds: index arrays over the pairs; empty where the benchmark has none.
    subjects: int (N,), the person of each image; None where nobody knows: intervals are then drawn over pairs.
    keys: name of each image, for captions; None where nobody knows. notes: oddities, to be read beside the figures.
    """

    benchmark: str
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    folds: Sequence[np.ndarray] = ()
    subjects: np.ndarray | None = None
    keys: Sequence[str] | None = None
    notes: Sequence[str] = ()

    @property
    def people(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Person of each side, int (P,) each."""
        return None if self.subjects is None else (self.subjects[self.first], self.subjects[self.second])


@dataclass(frozen=True)
class VerificationResult:
    """Figures of one model on one list of pairs.

    scores: float64 (P,) cosine similarities. distances: float64 (P,), squared; None where they play no part.
    fold_accuracy: InsightFace's ten-fold figure on its grid of squared distances. exact: the same over all
        thresholds. None for benchmarks without folds.
    val: InsightFace's VAL at FAR 1e-3; None where a fold lacks one kind of pair.
    xnorm: mean length of the embeddings before normalisation, None where they came normalised.
    intervals: None when not asked for. rule: how TAR was read at the FARs.
    figures: further named numbers, as other trainers report them.
    """

    model: str
    trials: Trials
    scores: np.ndarray
    roc: Roc
    eer: float
    eer_threshold: float
    tars: list[TarAtFar]
    distances: np.ndarray | None = None
    fold_accuracy: FoldAccuracy | None = None
    exact: FoldAccuracy | None = None
    val: ValAtFar | None = None
    xnorm: float | None = None
    intervals: VerificationIntervals | None = None
    rule: str = "highest TAR with FAR <= target"
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def benchmark(self) -> str:
        return self.trials.benchmark

    @property
    def accuracy(self) -> FoldAccuracy:
        """`fold_accuracy` where the benchmark has folds. Raises InputError where it has none."""
        if self.fold_accuracy is None:
            raise InputError(f"{self.benchmark} has no folds and so no accuracy")
        return self.fold_accuracy

    @property
    def auc(self) -> float:
        return self.roc.auc

    @property
    def threshold(self) -> float:
        """Cosine similarity to judge pairs at: the mean over the folds, without folds that of the EER."""
        return self.fold_accuracy.similarity if self.fold_accuracy else self.eer_threshold

    @property
    def correct(self) -> np.ndarray:
        """bool (P,): judged right at the threshold of the pair's fold, without folds at `threshold`."""
        if self.fold_accuracy is None or self.distances is None:
            return np.asarray((self.scores >= self.threshold) == self.trials.same)
        return _correct(self.distances, self.trials, self.fold_accuracy)

    def worst(self, same: bool, count: int) -> np.ndarray:
        """Indices of up to `count` wrongly judged pairs at `threshold`, worst first.

        same=True: false rejects, lowest score first; same=False: false accepts, highest score first.
        """
        wrong = np.flatnonzero((self.trials.same == same) & ((self.scores >= self.threshold) != same))
        rank = self.scores[wrong] if same else -self.scores[wrong]
        return wrong[np.argsort(rank, kind="stable")][:count]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists: the figures, and enough points of the ROC to advise thresholds from."""
        bounds = self.intervals
        return {
            "benchmark": self.benchmark,
            "model": self.model,
            "pairs": {"same": self.roc.genuines, "different": self.roc.impostors},
            "accuracy": self.fold_accuracy
            and {
                **_folds_json(self.fold_accuracy),
                "rule": "10-fold, InsightFace grid: squared distance, 0 to 4 in steps of 0.01",
                "interval": _interval_json(bounds.accuracy if bounds else None),
            },
            "accuracy_exact": self.exact and {**_folds_json(self.exact), "rule": "10-fold, every threshold"},
            "auc": {"value": self.auc, "interval": _interval_json(bounds.auc if bounds else None)},
            "eer": {
                "value": self.eer,
                "threshold": self.eer_threshold,
                "interval": _interval_json(bounds.eer if bounds else None),
            },
            "tar_rule": self.rule,
            "tar_at_far": [
                {**vars(tar), "interval": _interval_json(bounds.tar.get(tar.far) if bounds else None)}
                for tar in self.tars
            ],
            "val_at_far_1e-3": None if self.val is None else vars(self.val),
            "xnorm": self.xnorm,
            "figures": dict(self.figures),
            "notes": list(self.trials.notes),
            "intervals": bounds
            and {"level": 0.95, "drawn": bounds.by, "units": bounds.units, "replicates": bounds.replicates},
            "roc": _roc_json(self.roc),
        }


def verify(
    embeddings: np.ndarray,
    trials: Trials,
    *,
    model: str = "model",
    xnorm: float | None = None,
    fars: Sequence[float] = FARS,
    replicates: int = 1000,
    seed: int = 0,
) -> VerificationResult:
    """All verification figures of `embeddings` (N, D), normalised here.

    replicates: bootstrap size; 0 leaves the intervals out.
    Raises InputError for embeddings of a wrong count, zero or not finite, and for pairs of one kind only.
    """
    check_embeddings(embeddings, None if trials.subjects is None else len(trials.subjects))
    if len(embeddings) <= (last := int(max(trials.first.max(), trials.second.max()))):
        raise InputError(f"the pairs name image {last} but there are {len(embeddings)} embeddings")
    distances = squared_distances(embeddings, trials.first, trials.second)
    return verify_distances(distances, trials, model=model, xnorm=xnorm, fars=fars, replicates=replicates, seed=seed)


def verify_distances(
    distances: np.ndarray,
    trials: Trials,
    *,
    model: str = "model",
    xnorm: float | None = None,
    fars: Sequence[float] = FARS,
    replicates: int = 1000,
    seed: int = 0,
) -> VerificationResult:
    """`verify` from squared distances (P,) of unit embeddings."""
    scores, same = check_trials(1 - distances / 2, trials.same)
    roc = roc_curve(scores, same)
    accuracy, _ = grid_accuracy(distances, same, trials.folds)
    eer, eer_threshold = equal_error_rate(roc)
    tars = tars_at_fars(roc, fars)
    intervals = None
    if replicates:
        supported = [tar.far for tar in tars if tar.tar is not None]
        correct = _correct(distances, trials, accuracy)
        intervals = verification_intervals(scores, same, correct, trials.people, supported, replicates, seed)
    return VerificationResult(
        model=model,
        trials=trials,
        scores=scores,
        roc=roc,
        eer=eer,
        eer_threshold=eer_threshold,
        tars=tars,
        distances=distances,
        fold_accuracy=accuracy,
        exact=exact_accuracy(distances, same, trials.folds),
        val=_val(distances, same, trials.folds),
        xnorm=xnorm,
        intervals=intervals,
    )


def _correct(distances: np.ndarray, trials: Trials, accuracy: FoldAccuracy) -> np.ndarray:
    correct = np.zeros(len(distances), bool)
    for fold, threshold in zip(trials.folds, accuracy.thresholds, strict=True):
        correct[fold] = (distances[fold] < threshold) == trials.same[fold]
    return correct


def _val(distances: np.ndarray, same: np.ndarray, folds: Sequence[np.ndarray]) -> ValAtFar | None:
    try:
        return val_at_far(distances, same, folds)
    except InputError:  # a fold of one kind only: the figure is not defined, the others are
        return None


def _folds_json(accuracy: FoldAccuracy) -> dict[str, Any]:
    return {
        "mean": accuracy.mean,
        "std": accuracy.std,
        "threshold": accuracy.similarity,
        "threshold_squared_distance": accuracy.threshold,
        "folds": accuracy.accuracies.tolist(),
    }


def _interval_json(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _roc_json(roc: Roc) -> dict[str, Any]:
    """Corners of the ROC, without the first point, whose threshold is infinite."""
    kept = corner_points(roc, KEPT_POINTS)[1:]
    return {
        "thresholds": roc.thresholds[kept].tolist(),
        "false_accepts": roc.false_accepts[kept].tolist(),
        "true_accepts": roc.true_accepts[kept].tolist(),
    }
