"""A model x a benchmark -> results, in memory: for training, and for the baselines. Large sets go through `store`."""

import numpy as np
import torch

from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate.benchmark import Benchmark
from marginface.evaluate.embeddings import Embeddings, Progress, embed_images
from marginface.evaluate.images import Images
from marginface.metrics.result import VerificationResult

MOST_PIXELS = 20_000
"""Images whose pixels are held in memory for the baseline, 3 GB."""


def measure(
    benchmark: Benchmark,
    model: Embedder,
    *,
    name: str = "model",
    flip: bool = True,
    replicates: int = 1000,
    progress: Progress | None = None,
) -> VerificationResult:
    """Every figure of `model` on pairs; `replicates` 0 leaves the confidence intervals out.

    All processes of a run must call this; each embeds a share of the images.
    Raises InputError for benchmarks that are a search.
    """
    return score_pairs(benchmark, embed_images(model, benchmark.images, flip, progress), name, replicates)


def score_pairs(benchmark: Benchmark, embeddings: Embeddings, name: str, replicates: int = 1000) -> VerificationResult:
    """The same of embeddings that are there."""
    result = benchmark.score(embeddings, name, replicates)[0]
    if not isinstance(result, VerificationResult):
        raise InputError(f"{result.benchmark} is a search, not pairs, and has no accuracy; use marginface evaluate")
    return result


def pixels(images: Images, size: int) -> Embeddings:
    """The baseline without any learning: the pixels themselves, less the mean of each image's channels."""
    if len(images) > MOST_PIXELS:
        raise InputError(
            f"{images.name} has {len(images)} images, too many to compare raw pixels; leave out --baselines"
        )
    parts = [
        (chunk - chunk.mean(axis=(1, 2), keepdims=True, dtype=np.float32)).reshape(len(chunk), -1)
        for chunk in images.chunks(size)
    ]
    return Embeddings(np.concatenate(parts))


def untrained(model: Embedder, seed: int = 0) -> Embedder:
    """The baseline of the architecture: the same network with fresh weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Embedder.create(model.config, model.preprocessing).to(model.device)
