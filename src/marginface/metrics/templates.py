"""Face templates: many images of a person pooled into one vector, as the IJB evaluations do. Used by `protocols.ijb`.

InsightFace's eval_ijbc: images of one medium (a video, a photograph) are averaged, media are summed, the sum is
scaled to length 1. MagFace scales the media to length 1 first. AdaFace fuses the two passes by their lengths.
"""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from marginface.errors import InputError


@dataclass(frozen=True)
class Pooling:
    """What enters a template.

    norms: keep the lengths of the image embeddings (eval_ijbc's N1); else scale each to length 1 after the flip.
    detector: multiply by the detector's score (D1). flip: add the mirror image's embedding (F1).
    media: "mean" as eval_ijbc; "unit" scales each medium's mean to length 1 (MagFace without its quality).
    """

    norms: bool = True
    detector: bool = True
    flip: bool = True
    media: str = "mean"

    def __post_init__(self) -> None:
        if self.media not in ("mean", "unit"):
            raise InputError(f"pooling of media is 'mean' or 'unit', not '{self.media}'")

    @property
    def name(self) -> str:
        """InsightFace's short form, N1D1F1 by default."""
        return f"N{self.norms:d}D{self.detector:d}F{self.flip:d}" + ("" if self.media == "mean" else "-unit-media")


POOLINGS = {
    "insightface": Pooling(),
    "adaface": Pooling(detector=False),
    "adaface-norm-weighted": Pooling(norms=False, detector=False),
    "magface": Pooling(detector=False, flip=False, media="unit"),
    "magface-quality": Pooling(detector=False, flip=False),
}
"""By the scripts that pool so: AdaFace's (`pre_norm_vector_add`, and `norm_weighted_avg`, which is the same sum of both
passes scaled to length 1) and MagFace's (`--magface_qlt` 0 and 1)."""


def read_pooling(word: str) -> Pooling:
    """From InsightFace's short form, such as N1D1F1, or a name among POOLINGS. Raises InputError for others."""
    if short := re.fullmatch(r"N([01])D([01])F([01])", word):
        norms, detector, flip = (digit == "1" for digit in short.groups())
        return Pooling(norms, detector, flip)
    if word not in POOLINGS:
        raise InputError(f"unknown pooling '{word}'; give N1D1F1 or the like, or one of {', '.join(POOLINGS)}")
    return POOLINGS[word]


@dataclass(frozen=True)
class Templates:
    """ids: int64 (T,), rising. vectors: float64 (T, D) of length 1. images: how many made each, int64 (T,)."""

    ids: np.ndarray
    vectors: np.ndarray
    images: np.ndarray


def pool_templates(
    original: np.ndarray,
    flipped: np.ndarray | None,
    faceness: np.ndarray,
    templates: np.ndarray,
    media: np.ndarray,
    pooling: Pooling | None = None,
) -> Templates:
    """Pools image embeddings into templates, blockwise: `original` and `flipped` may be memory-mapped.

    original, flipped: float32 (N, D), before normalisation. faceness: float (N,), the detector's score.
    templates, media: int (N,), ids of each image's template and medium.
    Raises InputError for lengths that differ, and for embeddings that leave a template zero or not finite.
    """
    pooling = pooling or Pooling()
    _check(original, flipped, faceness, templates, media, pooling)
    ids, template_of = np.unique(templates, return_inverse=True)
    template_of_medium, medium_of = _unique_pairs(template_of, media)
    features = _features(original, flipped if pooling.flip else None, faceness if pooling.detector else None, pooling)
    dimensions = original.shape[1]
    means = _grouped_sums(features, dimensions, medium_of, len(template_of_medium))
    means /= np.bincount(medium_of)[:, None].astype(np.float32)
    if pooling.media == "unit":
        means /= np.linalg.norm(means, axis=1, keepdims=True)
    vectors = _grouped_sums(_rows_of(means), dimensions, template_of_medium, len(ids)).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    if bad := np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0))).tolist():
        raise InputError(
            f"{len(bad)} of {len(ids)} templates are zero or not finite (first: template {ids[bad[0]]}); "
            "check the embeddings of their images"
        )
    vectors /= lengths[:, None]
    return Templates(ids, vectors, np.bincount(template_of))


Rows = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Row indices (n,) and two buffers (2, >= n, D) -> features (n, D) float32, in the first of them."""


def _features(original: np.ndarray, flipped: np.ndarray | None, faceness: np.ndarray | None, pooling: Pooling) -> Rows:
    """The very operations of eval_ijbc."""
    scores = None if faceness is None else faceness.astype(np.float32)
    passes = [_rows_of(np.ascontiguousarray(one, np.float32)) for one in (original, flipped) if one is not None]

    def features(rows: np.ndarray, into: np.ndarray) -> np.ndarray:
        block = passes[0](rows, into)
        if len(passes) == 2:
            block += passes[1](rows, into[1:])
        if not pooling.norms:
            block /= np.sqrt(np.sum(block**2, axis=-1, keepdims=True))
        if scores is not None:
            block *= scores[rows, None]
        return block

    return features


def _rows_of(vectors: np.ndarray) -> Rows:
    # "clip" because numpy otherwise copies the buffer
    return lambda rows, into: np.take(vectors, rows, axis=0, out=into[0, : len(rows)], mode="clip")


def _grouped_sums(features: Rows, dimensions: int, group_of: np.ndarray, groups: int, step: int = 256) -> np.ndarray:
    """float32 (groups, D): the sum of the rows of each group, added one after the other in their order.

    The order is kept, and no matrix product used, because the references add so: a last bit decides which of two
    almost equal scores is the higher. To add many groups at once, the first rows of `step` groups of like size are
    added, then the second rows of those that have one, and so on.
    """
    order = _stable_order(group_of)
    sizes = np.bincount(group_of, minlength=groups)
    starts = np.cumsum(sizes) - sizes
    by_size = np.argsort(-sizes, kind="stable")  # in a block those groups that go on are a prefix
    sums = np.empty((groups, dimensions), np.float32)
    threads = os.cpu_count() or 1

    def work(thread: int) -> None:
        total, buffer = np.empty((2, 2, step, dimensions), np.float32)
        for low in range(thread * step, groups, threads * step):
            own = by_size[low : low + step]
            first, most = starts[own], -sizes[own]
            found = features(order[first], total)
            for layer in range(1, -int(most[0])):
                going = int(np.searchsorted(most, -layer, side="left"))
                found[:going] += features(order[first[:going] + layer], buffer)
            sums[own] = found

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return sums


def _stable_order(numbers: np.ndarray) -> np.ndarray:
    """argsort(kind="stable") of whole numbers in [0, 2^32): numpy has a radix sort for 16 bits, so twice that."""
    order = np.argsort((numbers & 0xFFFF).astype(np.uint16), kind="stable")
    high = (numbers >> 16).astype(np.uint16)
    return order[np.argsort(high[order], kind="stable")] if high.any() else order


def _unique_pairs(template_of: np.ndarray, media: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Template of each distinct (template, medium), and which of them each image belongs to."""
    medium = media.astype(np.int64) - int(media.min())
    span = int(medium.max()) + 1
    if span * (int(template_of.max()) + 1) >= 2**63:  # ids far apart: number them first
        medium = np.unique(media, return_inverse=True)[1]
        span = int(medium.max()) + 1
    pairs, index = np.unique(template_of.astype(np.int64) * span + medium, return_inverse=True)
    return pairs // span, index


def _check(
    original: np.ndarray,
    flipped: np.ndarray | None,
    faceness: np.ndarray,
    templates: np.ndarray,
    media: np.ndarray,
    pooling: Pooling,
) -> None:
    if original.ndim != 2 or not len(original) == len(faceness) == len(templates) == len(media):
        raise InputError(
            f"{original.shape} embeddings, {len(faceness)} detector scores, {len(templates)} template and "
            f"{len(media)} media ids do not belong together; give one of each an image"
        )
    if flipped is not None and flipped.shape != original.shape:
        raise InputError(f"embeddings of the mirror images are {flipped.shape}, of the images {original.shape}")
    if pooling.flip and flipped is None:
        raise InputError(f"{pooling.name} adds the mirror images' embeddings; give them, or pool without the flip")
