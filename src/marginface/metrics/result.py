"""One model on one pairs benchmark: every figure that table, JSON and report show. Built by `protocols`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.metrics.intervals import Interval, VerificationIntervals, verification_intervals
from marginface.metrics.roc import Roc, TarAtFar, check_trials, equal_error_rate, roc_curve, tars_at_fars
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


@dataclass(frozen=True)
class VerificationResult:
    """Figures of one model on one list of pairs.

    model, benchmark: names shown to people.
    scores: float64 (P,) cosine similarities. same: bool (P,). first, second: int (P,), image of each side.
    keys: name of each image, for captions; None where nobody knows.
    fold_accuracy: InsightFace's ten-fold figure on its grid of squared distances. exact: the same over all thresholds.
        None for benchmarks without folds.
    xnorm: mean length of the embeddings before normalisation, None where they came normalised.
    rule: how TAR was read at the FARs.
    val: InsightFace's VAL at FAR 1e-3; None where a fold lacks one kind of pair.
    intervals: None when not asked for. notes: oddities of the benchmark, to be read beside the figures.
    """

    model: str
    benchmark: str
    scores: np.ndarray
    same: np.ndarray
    first: np.ndarray
    second: np.ndarray
    keys: Sequence[str] | None
    fold_accuracy: FoldAccuracy | None
    exact: FoldAccuracy | None
    roc: Roc
    eer: float
    eer_threshold: float
    tars: list[TarAtFar]
    val: ValAtFar | None
    xnorm: float | None
    intervals: VerificationIntervals | None
    notes: Sequence[str] = ()
    rule: str = "highest TAR with FAR <= target"

    @property
    def auc(self) -> float:
        return self.roc.auc

    @property
    def accuracy(self) -> FoldAccuracy:
        """`fold_accuracy` where the benchmark has folds. Raises InputError where it has none."""
        if self.fold_accuracy is None:
            raise InputError(f"{self.benchmark} has no folds and so no accuracy")
        return self.fold_accuracy

    @property
    def threshold(self) -> float:
        """Cosine similarity to judge pairs at: the mean over the folds, without folds that of the EER."""
        return self.fold_accuracy.similarity if self.fold_accuracy else self.eer_threshold

    def worst(self, same: bool, count: int) -> np.ndarray:
        """Indices of up to `count` wrongly judged pairs at `threshold`, worst first.

        same=True: false rejects, lowest score first; same=False: false accepts, highest score first.
        """
        wrong = np.flatnonzero((self.same == same) & ((self.scores >= self.threshold) != same))
        rank = self.scores[wrong] if same else -self.scores[wrong]
        return wrong[np.argsort(rank, kind="stable")][:count]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists, without the per-pair arrays."""
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
            "notes": list(self.notes),
            "intervals": bounds
            and {"level": 0.95, "drawn": bounds.by, "units": bounds.units, "replicates": bounds.replicates},
        }


def verify(
    embeddings: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    same: np.ndarray,
    folds: Sequence[np.ndarray],
    *,
    model: str = "model",
    benchmark: str = "pairs",
    subjects: np.ndarray | None = None,
    keys: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    xnorm: float | None = None,
    fars: Sequence[float] = FARS,
    replicates: int = 1000,
    seed: int = 0,
) -> VerificationResult:
    """All verification figures of `embeddings` (N, D), normalised here, on the pairs (first[i], second[i]).

    same: bool (P,). folds: index arrays over the pairs. subjects: int (N,), the person of each image, for
    intervals by person; without it pairs are drawn. replicates: bootstrap size; 0 leaves the intervals out.
    Raises InputError for embeddings of a wrong count, zero or not finite, and for pairs of one kind only.
    """
    check_embeddings(embeddings, None if subjects is None else len(subjects))
    if len(embeddings) <= (last := int(max(first.max(), second.max()))):
        raise InputError(f"the pairs name image {last} but there are {len(embeddings)} embeddings")
    distances = squared_distances(embeddings, first, second)
    scores, same = check_trials(1 - distances / 2, same)
    roc = roc_curve(scores, same)
    accuracy, _ = grid_accuracy(distances, same, folds)
    eer, eer_threshold = equal_error_rate(roc)
    tars = tars_at_fars(roc, fars)
    intervals = None
    if replicates:
        people = None if subjects is None else (subjects[first], subjects[second])
        supported = [tar.far for tar in tars if tar.tar is not None]
        correct = _correct(distances, same, folds, accuracy.thresholds)
        intervals = verification_intervals(scores, same, correct, people, supported, replicates, seed)
    return VerificationResult(
        model=model,
        benchmark=benchmark,
        scores=scores,
        same=same,
        first=first,
        second=second,
        keys=keys,
        fold_accuracy=accuracy,
        exact=exact_accuracy(distances, same, folds),
        roc=roc,
        eer=eer,
        eer_threshold=eer_threshold,
        tars=tars,
        val=_val(distances, same, folds),
        xnorm=xnorm,
        intervals=intervals,
        notes=notes,
    )


def _correct(
    distances: np.ndarray, same: np.ndarray, folds: Sequence[np.ndarray], thresholds: np.ndarray
) -> np.ndarray:
    """bool (P,): judged right at the threshold of the pair's fold."""
    correct = np.zeros(len(distances), bool)
    for fold, threshold in zip(folds, thresholds, strict=True):
        correct[fold] = (distances[fold] < threshold) == same[fold]
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
