"""Who is who according to a model: odd images, one person under two names, wrong labels. Called by `inspect`."""

from dataclasses import dataclass

import numpy as np

BLOCK = 1 << 22  # cosines held at a time
WELL_BELOW = 0.001  # share of strangers that are as close to an identity as an image must at least be
USUAL = 0.05  # share of images that are further from their own identity than is usual


@dataclass(frozen=True)
class People:
    """What embeddings say about labels; cosines are to the mean of an identity's other images.

    own: float32 (N,). stranger: float, the cosine that one in a thousand strangers exceeds. usual: float, the
    cosine that 95 % of the images exceed.
    odd: rows further from their identity than `stranger`. better: {row: (identity, cosine)} of odd images that
    are as close to another identity as is usual there: likely wrong labels.
    same: (identity, identity, cosine) of which the one's images are on average as close to the other as is usual.
    """

    own: np.ndarray
    stranger: float
    usual: float
    odd: np.ndarray
    better: dict[int, tuple[int, float]]
    same: list[tuple[int, int, float]]


def examine(embeddings: np.ndarray, labels: np.ndarray, seed: int = 0) -> People:
    """embeddings: float32 (N, D), L2-normalised. labels: int64 (N,). Needs two identities with two images."""
    present, compact = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(present), embeddings.shape[1]), dtype=np.float32)
    np.add.at(sums, compact, embeddings)
    counts = np.bincount(compact)
    others = sums[compact] - embeddings  # an image does not vouch for itself
    own = np.einsum("nd,nd->n", embeddings, _unit(others))
    several = counts[compact] > 1
    centres = _unit(sums)
    stranger = _stranger(embeddings, compact, centres, seed)
    usual = float(np.quantile(own[several], USUAL)) if several.any() else 1.0
    odd = np.flatnonzero(several & (own < stranger))
    better = {
        int(row): (int(present[other]), cosine)
        for row, other, cosine in zip(odd, *_nearest_other(embeddings[odd], centres, compact[odd]), strict=True)
        if cosine > max(usual, own[row])
    }
    same = _same_people(centres, np.linalg.norm(sums, axis=1) / counts, max(usual, stranger))
    return People(own, stranger, usual, odd, better, [(int(present[a]), int(present[b]), c) for a, b, c in same])


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _stranger(embeddings: np.ndarray, labels: np.ndarray, centres: np.ndarray, seed: int) -> float:
    """The cosine that a share WELL_BELOW of images exceeds to an identity which is not theirs."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, len(embeddings), 200_000)
    identities = rng.integers(0, len(centres), 200_000)
    other = labels[images] != identities
    cosines = np.concatenate(
        [
            np.einsum("nd,nd->n", embeddings[images[part]], centres[identities[part]])
            for part in np.array_split(np.flatnonzero(other), 50)
        ]
    )
    return float(np.quantile(cosines, 1 - WELL_BELOW)) if len(cosines) else 1.0


def _nearest_other(images: np.ndarray, centres: np.ndarray, labels: np.ndarray) -> tuple[list[int], list[float]]:
    """For each image the identity, other than its own, whose centre is closest, and the cosine."""
    nearest: list[int] = []
    cosines: list[float] = []
    step = max(1, BLOCK // len(centres))
    for start in range(0, len(images), step):
        block = images[start : start + step] @ centres.T
        block[np.arange(len(block)), labels[start : start + step]] = -2
        best = block.argmax(axis=1)
        nearest += best.tolist()
        cosines += block[np.arange(len(block)), best].tolist()
    return nearest, cosines


def _same_people(centres: np.ndarray, lengths: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """Pairs where the images of one are on average closer than `threshold` to the centre of the other, closest first.

    lengths: (C,), of the mean of an identity's images; times the cosine of two centres it is that average.
    """
    found: list[tuple[int, int, float]] = []
    step = max(1, BLOCK // len(centres))
    for start in range(0, len(centres), step):
        block = centres[start : start + step] @ centres.T
        block *= np.maximum(lengths[start : start + step, None], lengths)
        block = np.triu(block, k=start + 1)
        for a, b in np.argwhere(block > threshold).tolist():
            found.append((start + a, b, float(block[a, b])))
    return sorted(found, key=lambda pair: -pair[2])
