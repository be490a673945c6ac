"""95 % intervals of TAR at low FARs for millions of pairs: people drawn, thresholds found anew. For `protocols.ijb`.

The weights are those of `intervals.pair_weights`. Only the highest impostor scores can move the threshold of a low
FAR, so only they are weighed one by one; the weight of all impostor pairs together is a product of counts.
"""

import numpy as np

from marginface.metrics.intervals import Interval, percentile_interval

CANDIDATES = 200_000
"""Impostor scores weighed one by one; a FAR that needs more has many false accepts, and keeps its threshold."""


def tar_intervals(
    scores: np.ndarray,
    same: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    thresholds: dict[float, float],
    replicates: int = 200,
    seed: int = 0,
) -> dict[float, Interval]:
    """Interval of TAR at each FAR of `thresholds` (FAR -> threshold in use).

    scores: float (P,). same: bool (P,). first, second: int (P,), person of each side, numbered from 0.
    """
    people = 1 + int(max(first.max(), second.max()))
    genuine = np.flatnonzero(same)
    genuine = genuine[np.argsort(-scores[genuine], kind="stable")]
    owners, ranked = first[genuine], scores[genuine]
    impostors = _highest_impostors(scores, same)
    level, a, b = scores[impostors], first[impostors], second[impostors]
    together = _counts(first, second, ~same, people)
    rng = np.random.default_rng(seed)
    tars: dict[float, list[float]] = {far: [] for far in thresholds}
    for _ in range(replicates):
        times = np.bincount(rng.integers(people, size=people), minlength=people).astype(np.float64)
        hits = np.cumsum(times[owners])
        weights = np.cumsum(times[a] * times[b])
        total = float(times @ together @ times)
        for far, threshold in thresholds.items():
            if far * 4 * np.count_nonzero(~same) <= len(level):
                last = int(np.searchsorted(weights, far * total, side="right"))
                threshold = float(level[last]) if last < len(level) else float(level[-1])
                accepted = int(np.searchsorted(-ranked, -threshold, side="left"))  # strictly above the next impostor
            else:
                accepted = int(np.searchsorted(-ranked, -threshold, side="right"))
            tars[far].append(hits[accepted - 1] / hits[-1] if accepted and hits[-1] else 0.0)
    return {far: percentile_interval(np.array(values), people) for far, values in tars.items()}


def _highest_impostors(scores: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Indices of the `CANDIDATES` highest impostor scores, falling."""
    impostors = np.flatnonzero(~same)
    if len(impostors) > CANDIDATES:
        impostors = impostors[np.argpartition(scores[impostors], len(impostors) - CANDIDATES)[-CANDIDATES:]]
    found: np.ndarray = impostors[np.argsort(-scores[impostors], kind="stable")]
    return found


def _counts(first: np.ndarray, second: np.ndarray, chosen: np.ndarray, people: int) -> np.ndarray:
    """float64 (people, people): how many of the chosen pairs join each two people."""
    counts = np.bincount(first[chosen].astype(np.int64) * people + second[chosen], minlength=people * people)
    return counts.reshape(people, people).astype(np.float64)
