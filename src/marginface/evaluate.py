"""A model x a benchmark -> results, and the reports on them. Called by `marginface evaluate` and by training."""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.files import replace_file
from marginface.loading.decode import decode, decode_batch
from marginface.metrics.result import VerificationResult
from marginface.protocols.pairs import Pairs, make_folder_pairs, make_pairs, read_pairs, stored_pairs
from marginface.readers import open_reader
from marginface.readers.base import Record
from marginface.readers.folder import IMAGE_SUFFIXES
from marginface.readers.verification import is_verification, open_verification
from marginface.report import Provenance, write_report

UNDERSTOOD = (
    "pairs:FOLDER (one folder a person, with FOLDER/pairs.txt or pairs:FOLDER,pairs=FILE; without either, pairs "
    "are drawn), a stored verification set such as lfw.bin, or synthetic:identities=200,images=8,first=100000"
)
CHUNK = 64


@dataclass(frozen=True)
class Benchmark:
    """Pairs, and where their images come from: `records` gives those at some positions of `pairs.images`."""

    pairs: Pairs
    records: Callable[[Sequence[int]], list[Record]]
    resize: bool = False

    @property
    def name(self) -> str:
        return self.pairs.name

    def images(self, size: int) -> Iterator[np.ndarray]:
        """All images in the order the protocol wants: RGB uint8 (n, size, size, 3), CHUNK at most at once.

        Raises InputError naming the images that cannot be read: a benchmark without them is another one.
        """
        for start in range(0, len(self.pairs.images), CHUNK):
            yield self.take(range(start, min(start + CHUNK, len(self.pairs.images))), size)

    def take(self, positions: Sequence[int], size: int) -> np.ndarray:
        """The images at these positions of the protocol's list, as in `images`."""
        images, failures = decode_batch(self.records(positions), size, self.resize, threads=2)
        if failures:
            raise InputError(
                f"{self.name}: {len(failures)} of its images cannot be read, repair or remove them and their pairs: "
                + " ".join(list(failures.values())[:3])
            )
        return images

    def picture(self, position: int) -> np.ndarray:
        """One image as it is: RGB uint8 (H, W, 3)."""
        return decode(self.records([position])[0])

    def checksum(self) -> str:
        """SHA-256 over the stored images and the pairs: two reports with the same one speak of the same data."""
        digest = hashlib.sha256()
        for start in range(0, len(self.pairs.images), CHUNK):
            for record in self.records(range(start, min(start + CHUNK, len(self.pairs.images)))):
                digest.update(record.image if isinstance(record.image, bytes) else record.image.tobytes())
        for part in (self.pairs.first, self.pairs.second, self.pairs.same):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def open_benchmark(spec: str, resize: bool = False) -> Benchmark:
    """From what stands behind --benchmark. Raises InputError for what is not understood, saying what is."""
    kind, _, rest = spec.partition(":")
    if kind == "synthetic":
        return _drawn(spec, resize)
    path, _, option = (rest if kind == "pairs" else spec).partition(",")
    key, _, pairs_file = option.partition("=")
    if not option and Path(path).exists() and is_verification(Path(path)):
        return _stored(path, resize)
    if (option and key != "pairs") or not Path(path).is_dir():
        raise InputError(f"benchmark {spec!r} is not understood or does not exist; give {UNDERSTOOD}")
    return _listed(Path(path), pairs_file, resize)


def _drawn(spec: str, resize: bool) -> Benchmark:
    reader = open_reader(spec)
    pairs = make_pairs(reader.labels, name=spec.partition(":")[0])
    return Benchmark(pairs, lambda positions: reader.read([int(str(pairs.images[i])) for i in positions]), resize)


def _stored(path: str, resize: bool) -> Benchmark:
    stored = open_verification(path)
    pairs = stored_pairs(stored.issame, stored.name)
    return Benchmark(pairs, lambda positions: [stored.images[i] for i in positions], resize)


def _listed(folder: Path, pairs_file: str, resize: bool) -> Benchmark:
    listed = Path(pairs_file) if pairs_file else folder / "pairs.txt"
    if pairs_file or listed.is_file():
        pairs = read_pairs(listed, folder)
    else:
        people = sum(path.is_dir() for path in folder.iterdir())
        pairs = make_folder_pairs(folder, folds=min(10, people // 2))

    def records(positions: Sequence[int]) -> list[Record]:
        paths = [Path(str(pairs.images[i])) for i in positions]
        return [Record(path.read_bytes(), 0, str(path)) for path in paths]

    return Benchmark(pairs, records, resize)


def measure(
    benchmark: Benchmark, model: Embedder, *, name: str = "model", flip: bool = True, replicates: int = 1000
) -> VerificationResult:
    """Every figure of `model` on the benchmark; `replicates` 0 leaves the confidence intervals out."""
    embeddings = np.concatenate(list(model.raw(benchmark.images(model.preprocessing.size), flip)))
    return benchmark.pairs.score(embeddings, name, replicates=replicates)


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


def baselines(benchmark: Benchmark, model: Embedder, seed: int = 0) -> list[VerificationResult]:
    """What a model must be compared with: raw pixels, and the same network with fresh weights."""
    return [measure_pixels(benchmark, model.preprocessing.size), measure_untrained(benchmark, model, seed)]


def publish(
    results: list[VerificationResult],
    benchmarks: list[Benchmark],
    *,
    title: str,
    command: str,
    json_file: str | Path | None,
    report_file: str | Path | None,
    training: Sequence[Mapping[str, str]] | None = None,
    samples: np.ndarray | None = None,
) -> None:
    """Writes the results as JSON and as one HTML page, each with what it takes to repeat them."""
    provenance = Provenance(
        command=command,
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions={name: version(name) for name in ("marginface", "torch", "numpy")},
        checksums={benchmark.name: benchmark.checksum() for benchmark in benchmarks},
    )
    if json_file is not None:
        content = {**dataclasses.asdict(provenance), "results": [result.to_json() for result in results]}
        with replace_file(json_file) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if report_file is not None and results:
        pictures = {benchmark.name: benchmark.picture for benchmark in benchmarks}
        write_report(
            report_file, results, title, training=training, provenance=provenance, pictures=pictures, samples=samples
        )


def embed_folder(
    model: Embedder, folder: str | Path, output: str | Path, flip: bool = True, resize: bool = False
) -> int:
    """Embeds every image below `folder`; returns how many.

    Writes an npz of `embeddings` float32 (N, D), L2-normalised, `norms` float32 (N,) before normalising, and
    `keys` (N,), paths relative to `folder`, sorted. Raises InputError naming the images that cannot be read.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}); give the folder of aligned faces")
    keys = [str(path.relative_to(folder)) for path in paths]
    parts = list(model.raw(_decoded(paths, model.preprocessing.size, resize), flip))
    embeddings = np.concatenate(parts)
    norms = np.linalg.norm(embeddings, axis=1)
    unit = embeddings / np.maximum(norms, 1e-12)[:, None]
    with replace_file(output) as temporary, temporary.open("wb") as file:
        np.savez(file, embeddings=unit, norms=norms, keys=np.array(keys))
    return len(keys)


def _decoded(paths: Sequence[Path], size: int, resize: bool) -> Iterator[np.ndarray]:
    for start in range(0, len(paths), CHUNK):
        chunk = [Record(path.read_bytes(), 0, str(path)) for path in paths[start : start + CHUNK]]
        images, failures = decode_batch(chunk, size, resize, threads=2)
        if failures:
            raise InputError(f"{len(failures)} images cannot be read: " + " ".join(list(failures.values())[:3]))
        yield images
