"""1:N search: ranks, and identification rates at false alarm rates in the two definitions in use. For `protocols`.

`legacy` is the definition of InsightFace's ijb_1n.py and of the published IJB tables made with it; `open-set` the
one of NIST (and of ijb_evals.py, PFE): they differ in what a false alarm is, so their figures do not compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marginface.errors import InputError

BLOCK = 4_000_000
"""Similarities held at once."""
TIE = 1e-12
"""Similarities closer than this are equal, and a mate that ties has lost: a matrix product may round the same two
vectors differently in different places."""


@dataclass(frozen=True)
class Search:
    """Every probe compared with every vector of one gallery.

    mate: float64 (P,), best similarity to the probe's own identity; -inf where the gallery lacks it.
    other: float64 (P,), best similarity to another identity; -inf where there is none.
    ahead: int64 (P,), how many of the others are at least as similar as the mate (as `bar`, where given).
    top_others: float64, the largest similarities between a probe and another identity, falling.
    """

    mate: np.ndarray
    other: np.ndarray
    ahead: np.ndarray
    top_others: np.ndarray

    @property
    def mated(self) -> np.ndarray:
        """bool (P,): the gallery holds the probe's identity."""
        return self.mate > -np.inf


@dataclass(frozen=True)
class TpirAtFpir:
    """Identification rate at a false alarm rate.

    trials: what the false alarms are counted on; mated: probes behind the identification rate. reason: why the
    trials cannot support the rate; the figure is then the reference's, to be read as marked.
    """

    fpir: float
    tpir: float
    threshold: float
    trials: int
    mated: int
    reason: str | None = None


def search(
    probes: np.ndarray,
    gallery: np.ndarray,
    probe_labels: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    bar: np.ndarray | None = None,
    top: int = 0,
) -> Search:
    """Compares unit vectors `probes` (P, D) and `gallery` (G, D) in blocks; labels are int (P,) and (G,).

    bar: float (P,), similarity that `ahead` counts against for probes without a mate here. top: how many
    `top_others` to keep. A gallery may hold several vectors of an identity: the best counts.
    """
    if probes.shape[1] != gallery.shape[1]:
        raise InputError(f"probes have {probes.shape[1]} numbers a vector, the gallery {gallery.shape[1]}")
    order = np.argsort(gallery_labels, kind="stable")
    sorted_labels, columns = gallery_labels[order], np.ascontiguousarray(gallery[order].T)
    starts = np.searchsorted(sorted_labels, probe_labels, side="left")
    counts = np.searchsorted(sorted_labels, probe_labels, side="right") - starts
    mate, other = np.full(len(probes), -np.inf), np.full(len(probes), -np.inf)
    ahead = np.zeros(len(probes), np.int64)
    best = _Largest(top)
    step = max(1, BLOCK // len(gallery))
    for low in range(0, len(probes), step):
        part = slice(low, low + step)
        similarities = probes[part] @ columns
        rows, places = _own_entries(starts[part], counts[part])
        np.maximum.at(mate[part], rows, similarities[rows, places])
        similarities[rows, places] = -np.inf
        level = mate[part] if bar is None else np.where(counts[part] > 0, mate[part], bar[part])
        other[part] = similarities.max(axis=1)
        ahead[part] = np.count_nonzero(similarities >= level[:, None] - TIE, axis=1)
        best.add(similarities)
    return Search(mate, other, ahead, best.values())


def rank_rates(ahead: np.ndarray, ranks: Sequence[int]) -> dict[int, float]:
    """Share of the probes with a mate among the `rank` best; `ahead` (P,) others are at least as similar as it.

    A mate that ties with another identity counts as behind it.
    """
    return {rank: float(np.mean(ahead < rank)) for rank in ranks}


def legacy_tpir(mates: np.ndarray, top_others: np.ndarray, fars: Sequence[float]) -> list[TpirAtFpir]:
    """`legacy`: the threshold lets ceil(far * probes) of ALL probe-gallery impostor similarities through.

    mates: float (P,), similarity of each probe to its one mate. top_others: the largest impostor similarities,
    falling, at least ceil(max(fars) * P). A mate above the threshold is a hit, whatever its rank.
    """
    probes = len(mates)
    rows = []
    for far in fars:
        allowed = int(np.ceil(far * probes))
        if allowed > len(top_others):
            raise InputError(f"false alarm rate {far:g} needs {allowed} impostor similarities, {len(top_others)} kept")
        threshold = float(top_others[allowed - 1])
        tpir = float(np.count_nonzero(mates > threshold + TIE) / probes)
        rows.append(TpirAtFpir(far, tpir, threshold, probes, probes, _reason(far, probes)))
    return rows


def open_set_tpir(found: Search, fpirs: Sequence[float]) -> list[TpirAtFpir]:
    """`open-set` in one gallery: false alarms are probes without a mate whose best similarity passes the threshold.

    The threshold is the max(floor(fpir * n), 1)-th largest of those; a hit is a mate above it that is also the
    most similar of all.
    """
    alarms = np.sort(found.other[~found.mated])[::-1]
    mates = found.mate[found.mated]
    first = mates > found.other[found.mated] + TIE
    if not len(alarms) or not len(mates):
        kind = "without" if not len(alarms) else "with"
        raise InputError(f"no probe {kind} a mate in this gallery; open-set identification needs both kinds")
    rows = []
    for fpir in fpirs:
        threshold = float(alarms[max(int(len(alarms) * fpir) - 1, 0)])
        tpir = float(np.count_nonzero(first & (mates > threshold + TIE)) / len(mates))
        rows.append(TpirAtFpir(fpir, tpir, threshold, len(alarms), len(mates), _reason(fpir, len(alarms))))
    return rows


def _reason(rate: float, trials: int) -> str | None:
    if rate * trials * (1 + 1e-12) >= 1:
        return None
    return f"needs at least {int(np.ceil(1 / rate - 1e-9)):,} probes, there are {trials:,}"


def _own_entries(starts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of every entry of a block that compares a probe with its own identity."""
    rows = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, starts[rows] + within


class _Largest:
    """The `count` largest of all numbers added; most blocks hold few that are large enough to look at."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.kept = np.empty(0)
        self.floor = -np.inf

    def add(self, block: np.ndarray) -> None:
        if not self.count:
            return
        self.kept = np.concatenate([self.kept, block[block > self.floor]])
        if len(self.kept) > 4 * self.count:
            self.kept = np.partition(self.kept, len(self.kept) - self.count)[-self.count :]
            self.floor = float(self.kept.min())

    def values(self) -> np.ndarray:
        return np.sort(self.kept)[::-1][: self.count]
