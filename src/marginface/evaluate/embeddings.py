"""What a network says about a benchmark's images: both passes kept apart."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from marginface.embedder import Embedder
from marginface.evaluate.images import Images
from marginface.processes import rank_and_size, together

Progress = Callable[[int, int], None]
"""Told how many of how many images are done."""


@dataclass(frozen=True)
class Embeddings:
    """original, flipped: float32 (N, D), un-normalised, of the images and of their mirror images; may be mapped files.

    flipped: None without a second pass. concat: join the passes side by side instead of adding them.
    """

    original: np.ndarray
    flipped: np.ndarray | None = None
    concat: bool = False

    @property
    def fused(self) -> np.ndarray:
        """float32 (N, D or 2 D), un-normalised."""
        if self.flipped is None:
            return self.original
        if self.concat:
            return np.concatenate([self.original, self.flipped], axis=1)
        return np.asarray(self.original + self.flipped)

    @property
    def norms(self) -> np.ndarray:
        """float (N,): the mean length of each image's embeddings, which tells quality for MagFace and AdaFace."""
        passes = [self.original] if self.flipped is None else [self.original, self.flipped]
        return np.asarray(np.mean([np.linalg.norm(part, axis=1) for part in passes], axis=0))

    @property
    def xnorm(self) -> float:
        """InsightFace's XNorm: the mean length over all images and both passes, before they are joined."""
        return float(np.mean(self.norms, dtype=np.float64))


def both_passes(
    model: Embedder, chunks: Iterable[np.ndarray], flip: bool
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Embeddings of each chunk of images and of its mirror images; the latter None where nobody joins them."""
    for chunk in chunks:
        (original,) = model.raw([chunk], flip=False)
        flipped = None
        if flip and model.preprocessing.flip != "none":
            (flipped,) = model.raw([np.ascontiguousarray(chunk[:, :, ::-1])], flip=False)
        yield original, flipped


def embed_images(model: Embedder, images: Images, flip: bool = True, progress: Progress | None = None) -> Embeddings:
    """Everything in memory; `store.embed_to_disk` is for large sets.

    All processes of a run must call this: each embeds its share, and all get the whole.
    """
    rank, size = rank_and_size()

    def own() -> list[tuple[np.ndarray, np.ndarray | None]]:
        chunks = images.chunks(model.preprocessing.size, images.parts[rank::size], model.preprocessing.template)
        parts: list[tuple[np.ndarray, np.ndarray | None]] = []
        for part in both_passes(model, chunks, flip):
            parts.append(part)
            if progress:
                progress(min(size * sum(len(own) for own, _ in parts), len(images)), len(images))
        return parts

    # chunk i is made by process i % size, so that its company, and with it every last bit, is the same for any size
    shares = together(own)
    parts = [share[turn] for turn in range(len(shares[0])) for share in shares if turn < len(share)]
    original = np.concatenate([part[0] for part in parts])
    mirrored = [part[1] for part in parts if part[1] is not None]
    return Embeddings(original, np.concatenate(mirrored) if mirrored else None, model.preprocessing.flip == "concat")
