"""A model x a benchmark -> results, in memory: for training, and for the baselines. Large sets go through `store`."""

from collections.abc import Sequence

import numpy as np
import torch

from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate.benchmark import Benchmark, Result
from marginface.evaluate.embeddings import Embeddings, Progress, embed_images
from marginface.evaluate.images import Images
from marginface.metrics.result import VerificationResult
from marginface.metrics.search_result import IdentificationResult
from marginface.processes import by_first, rank_and_size, together

FIGURES = ("accuracy", "rank 1", "best pair F1")
"""What a benchmark is followed by during training, each a share between 0 and 1."""

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
    result = benchmark.score(embed_images(model, benchmark.images, flip, progress), name, replicates)[0]
    if not isinstance(result, VerificationResult):
        raise InputError(f"{result.benchmark} is a search, not pairs, and has no accuracy; use marginface evaluate")
    return result


def main_figure(results: Sequence[Result]) -> tuple[str, float]:
    """(one of FIGURES, its value): of pairs with folds the accuracy, of a closed set the best F1, else rank 1."""
    for result in results:
        if isinstance(result, IdentificationResult):
            return next(
                ((name, value) for name, value in result.figures.items() if name in FIGURES),
                ("rank 1", result.ranks[1]),
            )
        if result.fold_accuracy is not None:
            return "accuracy", float(result.fold_accuracy.mean)
    raise InputError(f"{results[0].benchmark} has no folds and so no accuracy to follow during training")


def figure_during_training(benchmark: Benchmark, side: int) -> str:
    """The name of the benchmark's `main_figure`, once everything is found to be measurable.

    Every image is decoded, and random embeddings are scored. All processes of a run must call this; each decodes a
    share. Raises InputError naming what cannot be read or measured.
    """
    rank, size = rank_and_size()
    images = benchmark.images

    def score() -> str:
        random = np.random.default_rng(0).standard_normal((len(images), 8)).astype(np.float32)
        try:
            return main_figure(benchmark.score(Embeddings(random), "random", 0))[0]
        except InputError:
            raise
        except Exception as error:  # whatever a protocol says of data that it cannot measure
            raise InputError(f"{benchmark.name} cannot be measured: {error!r:.200}; give another benchmark") from error

    together(lambda: images.probe(side, images.parts[rank::size]))
    return by_first(score)


def pixels(images: Images, size: int, template: str = "arcface") -> Embeddings:
    """The baseline without any learning: the pixels themselves, less the mean of each image's channels."""
    if len(images) > MOST_PIXELS:
        raise InputError(
            f"{images.name} has {len(images)} images, too many to compare raw pixels; leave out --baselines"
        )
    parts = [
        (chunk - chunk.mean(axis=(1, 2), keepdims=True, dtype=np.float32)).reshape(len(chunk), -1)
        for chunk in images.chunks(size, template=template)
    ]
    return Embeddings(np.concatenate(parts))


def untrained(model: Embedder, seed: int = 0) -> Embedder:
    """The baseline of the architecture: the same network with fresh weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Embedder.create(model.config, model.preprocessing).to(model.device)
