"""A folder of known people: is this pair the same (best F1 over a sweep), and who is this (rank-1, macro-F1)?

The pair figures are those of the VN-Celeb table: as many different as same pairs, the threshold swept. For
the names, the first images of each person are enrolled (their mean is the person), all others are looked up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.metrics.compare import Comparison, compare_best_f1
from marginface.metrics.f1 import SWEEP, F1Sweep, best_f1_replicates, f1_sweep, macro_f1
from marginface.metrics.identification import rank_rates, search
from marginface.metrics.intervals import mean_interval, percentile_interval
from marginface.metrics.search_result import BEST_PAIR_F1, IdentificationResult
from marginface.metrics.verification import check_embeddings, squared_distances
from marginface.protocols.draw import draw_pairs
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import images_of_people

RANKS = (1, 5, 10)
MOST_PAIRS = 100_000


@dataclass(frozen=True)
class ClosedSet:
    """Known people.

    images: what to embed, in this order: paths, or rows of a reader. labels: int64 (N,), index into `names`. enrolled:
    bool (N,).
    """

    name: str
    images: Sequence[Any]
    labels: np.ndarray
    names: Sequence[str]
    enrolled: np.ndarray
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray

    def sweep(self, embeddings: np.ndarray, thresholds: np.ndarray | None = None) -> F1Sweep:
        """Accuracy, precision, recall and F1 of the pairs at `thresholds`, by default at every score."""
        return f1_sweep(self.scores(embeddings), self.same, thresholds)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Cosine of each pair, float64 (P,)."""
        check_embeddings(embeddings, len(self.images))
        return 1 - squared_distances(embeddings, self.first, self.second) / 2

    @property
    def people(self) -> tuple[np.ndarray, np.ndarray]:
        """The person of each side of the pairs, int64 (P,) each."""
        return self.labels[self.first], self.labels[self.second]

    def compare(self, models: Sequence[str], embeddings: Sequence[np.ndarray], replicates: int = 1000) -> Comparison:
        """Compare the best pair F1 of two models, whose embeddings are float (len(images), D)."""
        scores = [self.scores(one) for one in embeddings]
        return compare_best_f1(self.name, models, scores, self.same, self.people, replicates)

    def score(self, embeddings: np.ndarray, model: str = "model", *, replicates: int = 1000) -> IdentificationResult:
        """Every figure for `embeddings`, float (len(images), D), normalised here."""
        scores = self.scores(embeddings)
        exact, swept = f1_sweep(scores, self.same), f1_sweep(scores, self.same, SWEEP)
        vectors = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        vectors = vectors.astype(np.float64)
        gallery = np.zeros((len(self.names), vectors.shape[1]))
        np.add.at(gallery, self.labels[self.enrolled], vectors[self.enrolled])
        lengths = np.linalg.norm(gallery, axis=1, keepdims=True)
        if zero := np.flatnonzero(lengths == 0).tolist():
            raise InputError(
                f"the enrolled embeddings of {len(zero)} of {len(self.names)} people cancel out (first: "
                f"{self.names[zero[0]]}); enrol other images of them"
            )
        gallery /= lengths
        probes, people = vectors[~self.enrolled], self.labels[~self.enrolled]
        found = search(probes, gallery, people, np.arange(len(self.names)))
        named = np.concatenate([np.argmax(part @ gallery.T, axis=1) for part in np.array_split(probes, 64)])
        intervals = {}
        if replicates:
            intervals = {f"rank {rank}": mean_interval(found.ahead < rank, people, replicates) for rank in RANKS}
            drawn = best_f1_replicates(scores, self.same, self.people, replicates)
            intervals[BEST_PAIR_F1] = percentile_interval(drawn[np.isfinite(drawn)], len(self.names))
        return IdentificationResult(
            model=model,
            benchmark=self.name,
            probes=len(probes),
            gallery=len(gallery),
            people=len(np.unique(people)),
            cmc=np.array(list(rank_rates(found.ahead, range(1, min(50, len(gallery)) + 1)).values())),
            ranks=rank_rates(found.ahead, RANKS),
            rates={},
            intervals=intervals,
            figures={
                "macro F1": macro_f1(people, named),
                **_pair_figures("", exact),
                **_pair_figures(" on the grid 0 to 0.30", swept),
            },
        )


def read_closed_set(folder: str | Path, enrol: int = 1, seed: int = 0, allow_outside: bool = False) -> ClosedSet:
    """One folder per person; the first `enrol` images of each, by name, are enrolled, and all others looked up.

    Raises InputError for fewer than two people, naming and counting people with too few images, and for a symbolic
    link that leads out of the folder, unless `allow_outside`.
    """
    folder = Path(folder)
    people = images_of_people(folder, Bounds(folder, allow_outside=allow_outside)) if folder.is_dir() else {}
    labels = np.repeat(np.arange(len(people)), [len(images) for images in people.values()])
    images = [folder / image for own in people.values() for image in own]
    return make_closed_set(folder, images, labels, list(people), enrol, seed)


def make_closed_set(
    source: Path, images: Sequence[Any], labels: np.ndarray, names: Sequence[str], enrol: int = 1, seed: int = 0
) -> ClosedSet:
    """As `read_closed_set`, of images whose people are known. labels: int64 (N,), index into `names`."""
    if len(names) < 2:
        raise InputError(f"{source} must hold at least two people, a folder of pictures each; it holds {len(names)}")
    counts = np.bincount(labels, minlength=len(names))
    if few := np.flatnonzero(counts <= enrol).tolist():
        raise InputError(
            f"{len(few)} of {len(names)} people in {source} have no picture left to look up after enrolling {enrol} "
            f"(first: {names[few[0]]}); add pictures or leave them out"
        )
    order = np.argsort(labels, kind="stable")
    enrolled = np.empty(len(labels), dtype=bool)
    enrolled[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts) < enrol
    first, second, same = draw_pairs(labels, 1, None, seed, most_each=MOST_PAIRS)
    return ClosedSet(f"{source.name} closed set", images, labels, names, enrolled, first, second, same)


def _pair_figures(suffix: str, sweep: F1Sweep) -> dict[str, float]:
    at = sweep.best
    return {
        f"{BEST_PAIR_F1}{suffix}": float(sweep.f1[at]),
        f"threshold of the {BEST_PAIR_F1}{suffix}": float(sweep.thresholds[at]),
        f"pair precision there{suffix}": float(sweep.precision[at]),
        f"pair recall there{suffix}": float(sweep.recall[at]),
        f"pair accuracy there{suffix}": float(sweep.accuracy[at]),
    }
