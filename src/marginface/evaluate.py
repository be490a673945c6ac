"""A model x a benchmark -> embeddings to score. Called by `marginface evaluate` and by training."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.loading.decode import decode_batch
from marginface.metrics.result import VerificationResult
from marginface.protocols.pairs import Pairs, make_folder_pairs, make_pairs, read_pairs
from marginface.readers import open_reader
from marginface.readers.base import Reader, Record

UNDERSTOOD = (
    "pairs:FOLDER (one folder a person, with FOLDER/pairs.txt or pairs:FOLDER,pairs=FILE; "
    "without either, pairs are drawn) or synthetic:identities=200,images=8,first=100000"
)
CHUNK = 256


@dataclass(frozen=True)
class Benchmark:
    """Pairs, and where their images come from. `reader` is None where the images are files."""

    pairs: Pairs
    reader: Reader | None = None
    resize: bool = False

    @property
    def name(self) -> str:
        return self.pairs.name

    def images(self, size: int, chunk: int = CHUNK) -> Iterator[np.ndarray]:
        """All images in the order the protocol wants: RGB uint8 (n, size, size, 3), at most `chunk` at once.

        Raises InputError naming the images that cannot be read: a benchmark without them is another one.
        """
        for start in range(0, len(self.pairs.images), chunk):
            yield self.take(range(start, min(start + chunk, len(self.pairs.images))), size)

    def take(self, positions: range | list[int], size: int) -> np.ndarray:
        """The images at these positions of the protocol's list, as in `images`."""
        images, failures = decode_batch(self._records(positions), size, self.resize, threads=2)
        if failures:
            raise InputError(
                f"{self.name}: {len(failures)} of its images cannot be read, repair or remove them and their pairs: "
                + " ".join(list(failures.values())[:3])
            )
        return images

    def _records(self, positions: range | list[int]) -> list[Record]:
        if self.reader is not None:
            return self.reader.read([int(self.pairs.images[i]) for i in positions])
        paths = [Path(str(self.pairs.images[i])) for i in positions]
        return [Record(path.read_bytes(), 0, str(path)) for path in paths]


def open_benchmark(spec: str, resize: bool = False) -> Benchmark:
    """From what stands behind --benchmark. Raises InputError for what is not understood, saying what is."""
    kind, _, rest = spec.partition(":")
    if kind == "synthetic":
        reader = open_reader(spec)
        return Benchmark(make_pairs(reader.labels, name="synthetic"), reader, resize)
    folder, _, option = (rest if kind == "pairs" else spec).partition(",")
    key, _, pairs_file = option.partition("=")
    if (option and key != "pairs") or not Path(folder).is_dir():
        raise InputError(
            f"benchmark {spec!r} is not understood or its folder does not exist; give {UNDERSTOOD}"
        )
    if not option and not (Path(folder) / "pairs.txt").is_file():
        return Benchmark(make_folder_pairs(folder), None, resize)
    return Benchmark(read_pairs(pairs_file or Path(folder) / "pairs.txt", folder), None, resize)


def measure(
    benchmark: Benchmark, model: Embedder, *, name: str = "model", flip: bool = True, replicates: int = 1000
) -> VerificationResult:
    """Every figure of `model` on the benchmark; `replicates` 0 leaves the confidence intervals out."""
    embeddings = np.concatenate(list(model.raw(benchmark.images(model.preprocessing.size, chunk=64), flip)))
    norm = float(np.linalg.norm(embeddings, axis=1).mean())
    return benchmark.pairs.score(embeddings, name, xnorm=norm, replicates=replicates)


def measure_pixels(benchmark: Benchmark, size: int) -> VerificationResult:
    """The baseline without any learning: the pixels themselves, less the mean of each image's channels."""
    parts = [
        (chunk - chunk.mean(axis=(1, 2), keepdims=True, dtype=np.float32)).reshape(len(chunk), -1)
        for chunk in benchmark.images(size)
    ]
    return benchmark.pairs.score(np.concatenate(parts), "pixels")


def measure_untrained(benchmark: Benchmark, model: Embedder, seed: int = 0) -> VerificationResult:
    """The baseline of the architecture: the same network with fresh weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = Embedder.create(model.config, model.preprocessing).to(model.device)
    return measure(benchmark, fresh, name="untrained network")


def checksum(benchmark: Benchmark, size: int) -> str:
    """SHA-256 over the decoded images and the pairs, so that two reports can be known to speak of the same data."""
    digest = hashlib.sha256()
    for chunk in benchmark.images(size):
        digest.update(chunk.tobytes())
    for part in (benchmark.pairs.first, benchmark.pairs.second, benchmark.pairs.same):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
