"""TinyFace: search of very small faces among 157,871, rank-1/5/20 as the AdaFace and CVLface scripts measure
it.

`<root>/tinyface/Testing_Set/` holds probe_img_ID_pairs.mat and gallery_match_img_ID_pairs.mat (names
`<id>_<n>.jpg`) and the folder Gallery_Distractor; the images to embed are the aligned copies in
`<root>/<aligned>`, of equal base name.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.metrics.identification import rank_rates, search
from marginface.metrics.intervals import mean_interval
from marginface.metrics.search_result import IdentificationResult
from marginface.metrics.verification import check_embeddings
from marginface.protocols.matlab import read_names
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import walk_images

ALIGNED = "aligned_pad_0.1_pad_high"
RANKS = (1, 5, 20)
DISTRACTOR = -100
DEEPEST_RANK = 50


@dataclass(frozen=True)
class Tinyface:
    """images: what to embed, in this order: probes, then gallery matches, then distractors.

    labels: int64 (len(images),), the person of each image, DISTRACTOR for distractors. probes: how many lead
    the list.
    """

    images: list[Path]
    labels: np.ndarray
    probes: int

    def score(self, embeddings: np.ndarray, model: str = "model", *, replicates: int = 1000) -> IdentificationResult:
        """Ranks of the probes that have a mate, for `embeddings`, float (len(images), D), normalised here."""
        check_embeddings(embeddings, len(self.images))
        vectors = unit_rows(embeddings)
        probe_labels, gallery_labels = self.labels[: self.probes], self.labels[self.probes :]
        mated = np.isin(probe_labels, gallery_labels)
        if not mated.any():
            raise InputError("no probe of TinyFace has a mate in the gallery; check the lists")
        probes, people = vectors[: self.probes][mated], probe_labels[mated]
        found = search(probes, vectors[self.probes :], people, gallery_labels)
        without = int(np.sum(~mated))
        ranks = RANKS if replicates else ()
        intervals = {f"rank {rank}": mean_interval(found.ahead < rank, people, replicates) for rank in ranks}
        return IdentificationResult(
            model=model,
            benchmark="TinyFace",
            probes=len(probes),
            gallery=len(gallery_labels),
            people=len(np.unique(people)),
            cmc=np.array(list(rank_rates(found.ahead, range(1, DEEPEST_RANK + 1)).values())),
            ranks=rank_rates(found.ahead, RANKS),
            rates={},
            intervals=intervals,
            figures={},
            notes=[f"{without} probe(s) without a mate are left out"] if without else [],
        )


def read_tinyface(root: str | Path, aligned: str = ALIGNED, allow_outside: bool = False) -> Tinyface:
    """Raises InputError for missing lists, and naming and counting listed images that have no aligned copy.

    Also for a symbolic link that leads out of `root`, or out of another folder that `aligned` names, unless
    `allow_outside`.
    """
    root = Path(root)
    testing = root / "tinyface" / "Testing_Set"
    bounds = Bounds(root, *([] if aligned == ALIGNED else [root / aligned]), allow_outside=allow_outside)
    for name in ("probe_img_ID_pairs.mat", "gallery_match_img_ID_pairs.mat", "Gallery_Distractor"):
        bounds.check(testing / name)
    bounds.check(root / aligned)
    probes = read_names(testing / "probe_img_ID_pairs.mat", "probe_set")
    matches = read_names(testing / "gallery_match_img_ID_pairs.mat", "gallery_set")
    distracting = testing / "Gallery_Distractor"
    distractors = sorted(Path(name).name for name in walk_images(distracting, bounds)) if distracting.is_dir() else []
    if not (root / aligned).is_dir():
        raise InputError(f"{root / aligned} does not exist; align TinyFace's images into it first")
    files = [root / aligned / name for name in sorted(walk_images(root / aligned, bounds))]
    copies, stems = {path.stem: path for path in files}, Counter(path.stem for path in files)
    names = [*probes, *matches, *distractors]
    if doubled := [name for name in names if stems[Path(name).stem] > 1]:
        raise InputError(
            f"{len(doubled)} of TinyFace's {len(names)} images have several aligned copies in {root / aligned} "
            f"(first: {doubled[0]}); keep one of each"
        )
    if missing := [name for name in names if Path(name).stem not in copies]:
        raise InputError(
            f"{len(missing)} of TinyFace's {len(names)} images have no aligned copy in {root / aligned} "
            f"(first: {missing[0]}); align them"
        )
    labels = [*_people(probes), *_people(matches), *[DISTRACTOR] * len(distractors)]
    return Tinyface([copies[Path(name).stem] for name in names], np.array(labels), len(probes))


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """float64 (N, D), each row of length 1."""
    vectors = embeddings.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _people(names: Sequence[str]) -> list[int]:
    """The number before the first underscore of each name."""
    heads = [name.partition("_")[0] for name in names]
    if wrong := [name for name, head in zip(names, heads, strict=True) if not head.isdecimal()]:
        raise InputError(f"{len(wrong)} names of TinyFace do not begin with a person's number (first: {wrong[0]})")
    return [int(head) for head in heads]
