"""Is one model better than another? Paired tests on the same pairs. Called by `marginface compare`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marginface.errors import InputError
from marginface.metrics.binomial import at_most
from marginface.metrics.f1 import best_f1_replicates, f1_sweep
from marginface.metrics.intervals import Interval, paired_figures, percentile_interval
from marginface.metrics.result import VerificationResult

BEST_F1 = "best F1"


@dataclass(frozen=True)
class Comparison:
    """Second model less first, on one benchmark.

    only_first, only_second: pairs that only this model judged right. p_value: McNemar's exact test, two-sided.
    differences: figure ("accuracy", "auc", "tar 0.01", "best F1" ...) -> difference and its 95 % interval, both models
    on the same drawn people; one that does not hold 0 is significant.
    """

    benchmark: str
    first: str
    second: str
    only_first: int
    only_second: int
    p_value: float
    differences: Mapping[str, tuple[float, Interval]]


def compare(first: VerificationResult, second: VerificationResult, replicates: int = 1000, seed: int = 0) -> Comparison:
    """Raises InputError when the two results are not of the same pairs."""
    if first.benchmark != second.benchmark or not _same_pairs(first, second):
        raise InputError(
            f"{first.model} on {first.benchmark} and {second.model} on {second.benchmark} were not measured on the "
            "same pairs; evaluate both on one benchmark"
        )
    right = first.correct, second.correct
    only = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
    fars = [tar.far for tar in first.tars if tar.tar is not None and not tar.reason]
    trials = first.trials
    tables = [
        paired_figures(one.scores, trials.same, correct, trials.people, fars, replicates, seed)
        for one, correct in zip((first, second), right, strict=True)
    ]
    drawn = tables[1] - tables[0]
    drawn = drawn[np.all(np.isfinite(drawn), axis=1)]
    names = ["accuracy", "auc", "eer", *(f"tar {far:g}" for far in fars)]
    figures = [_figures(one, correct, fars) for one, correct in zip((first, second), right, strict=True)]
    differences = {
        name: (figures[1][i] - figures[0][i], percentile_interval(drawn[:, i], len(trials.same), errors=False))
        for i, name in enumerate(names)
    }
    return Comparison(
        first.benchmark, first.model, second.model, *only, p_value=mcnemar(*only), differences=differences
    )


def compare_best_f1(
    benchmark: str,
    models: Sequence[str],
    scores: Sequence[np.ndarray],
    same: np.ndarray,
    people: tuple[np.ndarray, np.ndarray],
    replicates: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare the best F1 of two models on the same pairs; McNemar's test is at the best threshold of each.

    models: two names. scores: their cosines of the pairs, float (P,) each. same, people: see `best_f1_replicates`.
    """
    sweeps = [f1_sweep(one, same) for one in scores]
    judged = [(one > sweep.thresholds[sweep.best]) == same for one, sweep in zip(scores, sweeps, strict=True)]
    only = int(np.sum(judged[0] & ~judged[1])), int(np.sum(judged[1] & ~judged[0]))
    drawn = np.subtract(*(best_f1_replicates(one, same, people, replicates, seed) for one in reversed(scores)))
    difference = float(sweeps[1].f1[sweeps[1].best] - sweeps[0].f1[sweeps[0].best])
    interval = percentile_interval(drawn[np.isfinite(drawn)], len(same), errors=False)
    return Comparison(
        benchmark, models[0], models[1], *only, p_value=mcnemar(*only), differences={BEST_F1: (difference, interval)}
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that the discordant pairs fall either way with equal chance."""
    return min(1.0, 2 * at_most(min(only_first, only_second), only_first + only_second, 0.5))


def _same_pairs(first: VerificationResult, second: VerificationResult) -> bool:
    one, other = first.trials, second.trials
    return all(np.array_equal(getattr(one, side), getattr(other, side)) for side in ("first", "second", "same"))


def _figures(result: VerificationResult, correct: np.ndarray, fars: list[float]) -> list[float]:
    tars = {tar.far: tar.tar for tar in result.tars}
    return [float(np.mean(correct)), result.auc, result.eer, *(tars[far] or 0.0 for far in fars)]
