"""Whether an exported network says the same as the one it was made from."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from marginface.embedder import Embedder, unit
from marginface.readers.synthetic import SyntheticFaces

LIMIT = 1e-4
BATCHES = (1, 7)


@dataclass(frozen=True)
class Parity:
    """images: what they were. count: how many. difference: the largest of a number of an embedding, relative to the
    embedding's length. cosine: the smallest."""

    images: str
    count: int
    difference: float
    cosine: float


def parity(ours: Embedder, theirs: Embedder, unit_length: bool, seed: int = 0) -> list[Parity]:
    """Compares on noise and on procedural faces, each in batches of one and of several.

    unit_length: `theirs` normalises its embeddings.
    """
    rows = []
    for name, images in inputs(ours, seed):
        chunks = [part for size in BATCHES for part in np.split(images, range(size, len(images), size))]
        expected = np.concatenate(list(ours.raw(chunks, flip=False)))
        found = np.concatenate(list(theirs.raw(chunks, flip=False)))
        lengths = np.linalg.norm(expected, axis=1, keepdims=True)
        expected, lengths = (unit(expected), np.ones_like(lengths)) if unit_length else (expected, lengths)
        difference = float((np.abs(found - expected) / np.maximum(lengths, 1e-12)).max())
        cosine = float((unit(found) * unit(expected)).sum(1).min())
        rows.append(Parity(name, len(images), difference, cosine))
    return rows


def inputs(model: Embedder, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """RGB uint8 (8, H, W, 3) each."""
    height, width = model.preprocessing.image_size
    noise = np.random.default_rng(seed).integers(0, 256, (8, height, width, 3), np.uint8)
    yield "noise", noise
    faces = SyntheticFaces(4, 2, seed=seed, size=max(height, width)).read(range(8))
    yield "faces", np.stack([np.asarray(face.image) for face in faces])
