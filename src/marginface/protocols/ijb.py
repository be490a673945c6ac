"""IJB-B and IJB-C: 1:1 verification and 1:N search of templates, as the reference scripts define them.

`evaluate` embeds `ijb.images` (aligned by `ijb.points`) and their mirror images, un-normalised, and hands
both arrays, which may be memory-mapped, to `templates`; `verification` and `identification` take the
templates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.metrics.identification import (
    Search,
    TpirAtFpir,
    legacy_tpir,
    open_set_tpir,
    rank_rates,
    search,
)
from marginface.metrics.intervals import Interval, VerificationIntervals, mean_interval
from marginface.metrics.large_intervals import tar_intervals
from marginface.metrics.reference_roc import nearest_tar, reference_roc
from marginface.metrics.result import Trials, VerificationResult
from marginface.metrics.roc import TarAtFar, check_trials, equal_error_rate
from marginface.metrics.scores import pair_scores
from marginface.metrics.search_result import IdentificationResult
from marginface.metrics.templates import Pooling, Templates, pool_templates
from marginface.protocols.ijb_meta import GALLERIES, IjbMeta, meta_files, read_ijb_meta
from marginface.readers.containment import Bounds

FPRS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FPIRS = (1e-3, 1e-2, 1e-1)
RANKS = (1, 5, 10)
DEEPEST_RANK = 50


@dataclass(frozen=True)
class Ijb:
    """name: "IJBB" or "IJBC". folder: holds loose_crop and meta. meta: the files' content."""

    name: str
    folder: Path
    meta: IjbMeta

    @property
    def images(self) -> list[Path]:
        """What to embed, in this order: crops that `points` align."""
        return [self.folder / "loose_crop" / str(name) for name in self.meta.names]

    @property
    def points(self) -> np.ndarray:
        """float32 (N, 5, 2): x and y of the five points in each crop."""
        return self.meta.points

    def check(self) -> None:
        """Raises InputError for what `verification` and `identification` would refuse whatever the embeddings.

        That is templates without an image, probes without a mate, pairs of one kind: better now than after hours.
        """
        meta, ids = self.meta, np.unique(self.meta.templates)
        names = [f"1N_gallery_{name}.csv" for name in GALLERIES[self.name]]
        listed = [(meta.pairs[:, 0], "template_pair_label.txt"), (meta.pairs[:, 1], "template_pair_label.txt")]
        listed += [(meta.gallery1[:, 0], names[0]), (meta.gallery2[:, 0], names[1])]
        for wanted, file in [*listed, (meta.probes[:, 0], "1N_probe_mixed.csv")]:
            _rows(ids, wanted, file)
        _places_of_mates(meta.probes[:, 1], np.concatenate([meta.gallery1[:, 1], meta.gallery2[:, 1]]))
        check_trials(np.zeros(len(meta.same)), meta.same)

    def templates(self, original: np.ndarray, flipped: np.ndarray | None, pooling: Pooling | None = None) -> Templates:
        """Pools float32 (N, D) embeddings of the images and of their mirror images, before normalisation."""
        if len(original) != len(self.meta.names):
            raise InputError(f"{self.name} has {len(self.meta.names)} images, there are {len(original)} embeddings")
        meta = self.meta
        return pool_templates(original, flipped, meta.faceness, meta.templates, meta.media, pooling)

    def verification(
        self, templates: Templates, model: str = "model", *, fprs: Sequence[float] = FPRS, replicates: int = 200
    ) -> VerificationResult:
        """1:1: TPR at the FPR nearest to each of `fprs`, the references' rule. replicates 0 leaves out intervals."""
        first = _rows(templates.ids, self.meta.pairs[:, 0], "template_pair_label.txt")
        second = _rows(templates.ids, self.meta.pairs[:, 1], "template_pair_label.txt")
        scores = pair_scores(templates.vectors, first, second)
        roc = reference_roc(scores, self.meta.same, fprs)
        eer, eer_threshold = equal_error_rate(roc)
        tars = [nearest_tar(roc, fpr) for fpr in fprs]
        people, keys = _people(self.meta, templates.ids), [str(template) for template in templates.ids]
        trials = Trials(f"{self.name} 1:1", first, second, self.meta.same, subjects=people, keys=keys)
        return VerificationResult(
            model=model,
            trials=trials,
            scores=scores,
            roc=roc,
            eer=eer,
            eer_threshold=eer_threshold,
            tars=tars,
            intervals=_tar_intervals(scores, trials, tars, replicates) if replicates else None,
            rule="nearest FAR of scikit-learn's ROC points, the larger TAR of equals",
        )

    def identification(
        self, templates: Templates, model: str = "model", *, fpirs: Sequence[float] = FPIRS, replicates: int = 1000
    ) -> IdentificationResult:
        """1:N: ranks over both galleries together, `legacy` rates, and `open-set` rates of each gallery and
        their mean.

        Raises InputError when a probe has no mate, or several, in the two galleries.
        """
        probes, labels = self._side(templates, self.meta.probes, "1N_probe_mixed.csv")
        sides = [
            self._side(templates, rows, f"1N_gallery_{name}.csv")
            for rows, name in zip((self.meta.gallery1, self.meta.gallery2), GALLERIES[self.name], strict=True)
        ]
        mates = _only_mates(probes, labels, sides)
        top = int(np.ceil(max(fpirs) * len(probes)))
        found = [search(probes, vectors, labels, own, bar=mates, top=top) for vectors, own in sides]
        ahead = found[0].ahead + found[1].ahead
        others = np.sort(np.concatenate([one.top_others for one in found]))[::-1]
        rates = {"legacy": legacy_tpir(mates, others, fpirs)}
        opened = [open_set_tpir(one, fpirs) for one in found]
        rates |= {f"open-set {name}": rows for name, rows in zip(GALLERIES[self.name], opened, strict=True)}
        rates["open-set mean"] = [_mean(rows) for rows in zip(*opened, strict=True)]
        ranks = rank_rates(ahead, RANKS)
        return IdentificationResult(
            model=model,
            benchmark=f"{self.name} 1:N",
            probes=len(probes),
            gallery=sum(len(vectors) for vectors, _ in sides),
            people=len(np.unique(labels)),
            cmc=np.array(list(rank_rates(ahead, range(1, DEEPEST_RANK + 1)).values())),
            ranks=ranks,
            rates=rates,
            intervals=_intervals(ahead, mates, found, rates, labels, replicates) if replicates else {},
            figures={},
        )

    def _side(self, templates: Templates, rows: np.ndarray, file: str) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (n, D) and subjects (n,) of a gallery or of the probes."""
        return templates.vectors[_rows(templates.ids, rows[:, 0], file)], rows[:, 1]


def read_ijb(root: str | Path, name: str, cache: Path | None = None, allow_outside: bool = False) -> Ijb:
    """The set `name` ("IJBB" or "IJBC") in `root`, which is its folder or the one above. cache: see `ijb_meta`.

    Raises InputError for files and names in them that lead out of `root`, unless `allow_outside`.
    """
    if name not in GALLERIES:
        raise InputError(f"unknown IJB set '{name}'; known: {', '.join(GALLERIES)}")
    folder = Path(root) / name if (Path(root) / name).is_dir() else Path(root)
    if not (folder / "meta").is_dir():
        raise InputError(f"{root} holds no {name}/meta; give the folder with InsightFace's packaging of the set")
    bounds = Bounds(root, allow_outside=allow_outside)
    bounds.check_all(meta_files(folder, name).values())
    found = Ijb(name, folder, read_ijb_meta(folder, name, cache))
    bounds.check_all(found.images)
    return found


def tpr_table(results: Sequence[VerificationResult]) -> str:
    """Markdown in the layout of the published tables: FPR in columns, TPR in percent, one row a model."""
    fprs = [tar.far for tar in results[0].tars]
    lines = ["| FPR [1] | " + " | ".join(f"{fpr:g}" for fpr in fprs) + " |", "| :--- |" + " :---: |" * len(fprs)]
    for result in results:
        cells = ["–" if tar.tar is None else f"{100 * tar.tar:.2f}" for tar in result.tars]
        lines.append(f"| **{result.model} TPR [%]** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def identification_table(results: Sequence[IdentificationResult]) -> str:
    """Markdown in the layout of the published tables: ranks and legacy rates in rows, one column a model."""
    head = "| **metric** | " + " | ".join(f"{result.benchmark} {result.model}" for result in results) + " |"
    lines = [head, "| :--- |" + " :---: |" * len(results)]
    for rank in results[0].ranks:
        cells = [f"{100 * result.ranks[rank]:.3f}" for result in results]
        lines.append(f"| **correct rank-{rank} [%]** | " + " | ".join(cells) + " |")
    for number, rate in enumerate(results[0].rates["legacy"]):
        cells = [f"{100 * result.rates['legacy'][number].tpir:.3f}" for result in results]
        lines.append(f"| **FAR {100 * rate.fpir:g} % @ TPR [%]** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rows(ids: np.ndarray, wanted: np.ndarray, file: str) -> np.ndarray:
    """Place of each wanted template id in the rising `ids`; InputError for templates that have no image."""
    places = np.zeros(int(max(ids[-1], wanted.max())) + 2, np.int32)
    places[ids] = np.arange(1, len(ids) + 1, dtype=np.int32)
    rows: np.ndarray = places[wanted] - 1
    if np.any(rows < 0):
        lacking = np.unique(wanted[rows < 0])
        raise InputError(f"{file} names {len(lacking)} templates without an image (first: {lacking[0]})")
    return rows


def _people(meta: IjbMeta, ids: np.ndarray) -> np.ndarray:
    """Person of each template, numbered from 0; templates in no gallery or probe list count as people of their own."""
    known = np.concatenate([meta.gallery1, meta.gallery2, meta.probes]).astype(np.int64)
    people = -1 - np.arange(len(ids), dtype=np.int64)
    places = np.minimum(np.searchsorted(ids, known[:, 0]), len(ids) - 1)
    listed = ids[places] == known[:, 0]
    people[places[listed]] = known[listed, 1]
    return np.unique(people, return_inverse=True)[1].astype(np.int32)


def _tar_intervals(
    scores: np.ndarray, trials: Trials, tars: Sequence[TarAtFar], replicates: int
) -> VerificationIntervals | None:
    thresholds = {tar.far: tar.threshold for tar in tars if tar.threshold is not None and not tar.reason}
    if trials.people is None or not thresholds:
        return None
    bounds = tar_intervals(scores, trials.same, *trials.people, thresholds, replicates)
    units = len(np.unique(np.concatenate(trials.people)))
    return VerificationIntervals(None, None, None, bounds, "subject", units, replicates)


def _only_mates(probes: np.ndarray, labels: np.ndarray, sides: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Similarity of each probe to its one mate in the two galleries together."""
    vectors, own = np.concatenate([side[0] for side in sides]), np.concatenate([side[1] for side in sides])
    mates: np.ndarray = np.einsum("ij,ij->i", probes, vectors[_places_of_mates(labels, own)])
    return mates


def _places_of_mates(labels: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Where the one vector of each probe's subject is in the galleries; labels, own: subjects of both sides."""
    order = np.argsort(own, kind="stable")
    starts = np.searchsorted(own[order], labels, side="left")
    counts = np.searchsorted(own[order], labels, side="right") - starts
    if wrong := np.flatnonzero(counts != 1).tolist():
        raise InputError(
            f"{len(wrong)} of {len(labels)} probes do not have exactly one mate in the galleries "
            f"(first: subject {labels[wrong[0]]} with {counts[wrong[0]]})"
        )
    return order[starts]


def _mean(rows: Sequence[TpirAtFpir]) -> TpirAtFpir:
    """The galleries' mean at one rate; trials and probes are added up."""
    return TpirAtFpir(
        fpir=rows[0].fpir,
        tpir=float(np.mean([row.tpir for row in rows])),
        threshold=float(np.mean([row.threshold for row in rows])),
        trials=sum(row.trials for row in rows),
        mated=sum(row.mated for row in rows),
        reason=next((row.reason for row in rows if row.reason), None),
    )


def _intervals(
    ahead: np.ndarray,
    mates: np.ndarray,
    found: Sequence[Search],
    rates: dict[str, list[TpirAtFpir]],
    people: np.ndarray,
    replicates: int,
) -> dict[str, Interval]:
    """By figure's name; thresholds are held."""
    bounds = {f"rank {rank}": mean_interval(ahead < rank, people, replicates) for rank in RANKS}
    for rate in rates["legacy"]:
        bounds[f"legacy {rate.fpir:g}"] = mean_interval(mates > rate.threshold, people, replicates)
    for (name, rows), one in zip(list(rates.items())[1:3], found, strict=True):
        for rate in rows:
            hits = (one.mate > rate.threshold) & (one.mate > one.other)
            bounds[f"{name} {rate.fpir:g}"] = mean_interval(hits[one.mated], people[one.mated], replicates)
    return bounds
