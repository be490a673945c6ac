"""95 % confidence intervals of verification figures: people are drawn, not pairs. Called by `result`.

Pairs that share a person are not independent, so people are drawn with replacement: a person drawn w times
gives weight w to their same pairs, and a pair of two people the product of their weights (the vertex
bootstrap; Snijders and Borgatti 1999, as for face recognition in Bolle et al. 2004). Where nobody is named,
pairs are drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK = 2_000_000
"""Weights held at once: replicates are drawn in blocks of about this many numbers."""


@dataclass(frozen=True)
class Interval:
    """Bounds of a 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class VerificationIntervals:
    """Intervals of the headline figures, None where not asked for. `by` names what was drawn: "subject" or "pair"."""

    accuracy: Interval | None
    auc: Interval | None
    eer: Interval | None
    tar: dict[float, Interval]
    by: str
    units: int
    replicates: int


def pair_weights(
    subjects: tuple[np.ndarray, np.ndarray] | None, pairs: int, replicates: int, seed: int
) -> Iterator[np.ndarray]:
    """Blocks (b, pairs) float32 of bootstrap weights, `replicates` rows in all; see the module's caption.

    subjects: two int arrays (pairs,), the person of each side, numbered from 0; None draws the pairs
    themselves.
    """
    rng = np.random.default_rng(seed)
    units = pairs if subjects is None else 1 + int(max(subjects[0].max(), subjects[1].max()))
    step = max(1, BLOCK // max(pairs, units))
    for start in range(0, replicates, step):
        rows = min(step, replicates - start)
        drawn = rng.integers(units, size=(rows, units), dtype=np.int32) + units * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float32)
        if subjects is None:
            yield times
        else:
            first, second = np.take(times, subjects[0], axis=1), np.take(times, subjects[1], axis=1)
            yield np.where(subjects[0] == subjects[1], first, first * second)


def verification_intervals(
    scores: np.ndarray,
    same: np.ndarray,
    correct: np.ndarray,
    subjects: tuple[np.ndarray, np.ndarray] | None = None,
    fars: Sequence[float] = (),
    replicates: int = 1000,
    seed: int = 0,
) -> VerificationIntervals:
    """Intervals of accuracy, AUC, EER and TAR at each of `fars`.

    scores: float (P,), higher is more alike. same, correct: bool (P,); `correct` says whether the pair was
    judged right at its fold's threshold, which stays as it is. subjects: see `pair_weights`. The share of
    same pairs is kept at the set's own in each replicate. Thresholds for TAR and EER are found anew in each
    replicate.
    """
    table = paired_figures(scores, same, correct, subjects, fars, replicates, seed)
    table = table[np.all(np.isfinite(table), axis=1)]  # a replicate may hold one kind of pair only
    units = len(scores) if subjects is None else len(np.unique(np.concatenate(subjects)))
    bounds = [percentile_interval(column, units) for column in table.T]
    return VerificationIntervals(
        accuracy=bounds[0],
        auc=bounds[1],
        eer=bounds[2],
        tar=dict(zip(fars, bounds[3:], strict=True)),
        by="pair" if subjects is None else "subject",
        units=units,
        replicates=replicates,
    )


def paired_figures(
    scores: np.ndarray,
    same: np.ndarray,
    correct: np.ndarray,
    subjects: tuple[np.ndarray, np.ndarray] | None,
    fars: Sequence[float],
    replicates: int,
    seed: int,
) -> np.ndarray:
    """float64 (replicates, 3 + len(fars)): accuracy, AUC, EER and TARs of each replicate, as `verification_intervals`.

    The same seed draws the same people (or pairs) for any scores, so differences between models are paired.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last pair of each run of equal scores
    people = None if subjects is None else _renumber(subjects)
    rows = [
        _replicates(weights[:, order], same[order].astype(np.float32), correct[order].astype(np.float32), ends, fars)
        for weights in pair_weights(people, len(scores), replicates, seed)
    ]
    return np.concatenate(rows)


def mean_interval(values: np.ndarray, clusters: np.ndarray, replicates: int = 1000, seed: int = 0) -> Interval:
    """Interval of the mean of `values` (n,), whole clusters drawn; clusters: int (n,), such as the person of each.

    For rates whose threshold stays as it is: `values` then are 0 and 1.
    """
    _, number = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(number, values), np.bincount(number).astype(np.float64)
    units = len(sums)
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // units)
    means = []
    for start in range(0, replicates, step):
        drawn = rng.integers(units, size=(min(step, replicates - start), units))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return percentile_interval(np.concatenate(means), units)


def _renumber(subjects: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The people who occur in the pairs, numbered from 0 without gaps."""
    _, numbers = np.unique(np.concatenate(subjects), return_inverse=True)
    return numbers[: len(subjects[0])], numbers[len(subjects[0]) :]


def _replicates(
    weights_BP: np.ndarray,
    same_P: np.ndarray,
    correct_P: np.ndarray,
    ends_K: np.ndarray,
    fars: Sequence[float],
) -> np.ndarray:
    """(B, 3 + len(fars)): accuracy, AUC, EER, TARs of each replicate; pairs ordered by falling score."""
    true_BP, false_BP = weights_BP * same_P, weights_BP * (1 - same_P)
    # rows of true and false accepts at each distinct score; float64 sums of small integers are exact
    tar_BK = np.cumsum(true_BP, axis=1, dtype=np.float64)[:, ends_K]
    far_BK = np.cumsum(false_BP, axis=1, dtype=np.float64)[:, ends_K]
    with np.errstate(invalid="ignore", divide="ignore"):
        hits = (true_BP @ correct_P) / tar_BK[:, -1]
        rejections = (false_BP @ correct_P) / far_BK[:, -1]
        tar_BK /= tar_BK[:, -1:]
        far_BK /= far_BK[:, -1:]
    share = float(np.mean(same_P))
    tar_BK = np.pad(tar_BK, ((0, 0), (1, 0)))
    far_BK = np.pad(far_BK, ((0, 0), (1, 0)))
    area = np.einsum("bk,bk->b", np.diff(far_BK), tar_BK[:, 1:] + tar_BK[:, :-1]) / 2
    columns = [share * hits + (1 - share) * rejections, area, _crossings(far_BK, tar_BK)]
    rows = np.arange(len(weights_BP))
    for far in fars:
        last = np.count_nonzero(far_BK <= far * (1 + 1e-12), axis=1) - 1
        columns.append(np.where(last < 0, np.nan, tar_BK[rows, last]))
    return np.stack(columns, axis=1)


def _crossings(far_BK: np.ndarray, tar_BK: np.ndarray) -> np.ndarray:
    """FAR = 1 - TAR on each row's polyline, (B,)."""
    gap = 1 - far_BK - tar_BK
    right = np.maximum(np.argmax(gap <= 0, axis=1), 1)
    rows = np.arange(len(gap))
    before, after = gap[rows, right - 1], gap[rows, right]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = before / (before - after)
    left = far_BK[rows, right - 1]
    crossed: np.ndarray = left + (far_BK[rows, right] - left) * part
    return crossed


def percentile_interval(values: np.ndarray, units: int, errors: bool = True) -> Interval:
    """2.5th and 97.5th percentile; without a single error (or success) seen, the rule of three on `units`.

    errors=False: the values are no rates, and the rule does not apply.
    """
    if len(values) == 0:
        return Interval(0.0, 1.0)
    low, high = np.percentile(values, [2.5, 97.5])
    if errors and low == high == 1:
        low = max(0.0, 1 - 3 / units)
    elif errors and low == high == 0:
        high = min(1.0, 3 / units)
    return Interval(float(low), float(high))
