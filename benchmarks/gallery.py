"""Search among a million faces: time a probe, recall, memory; and what the store costs.

Claims: 1 million vectors of 512 numbers with real identity clusters: in batches of 100 probes at most 2 ms a probe, a
single probe at most 50 ms, recall@1 at least 99 % of exact search. Run `python benchmarks/gallery.py` (about 3 minutes,
7 GB), or with `--rows 20000` for a look; `--store 1000000` also enrols so many in a store and opens it (half an hour,
15 GB of memory, 10 GB of disk). Writes benchmarks/gallery.md with --write.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from marginface.gallery.search import Matrix

LENGTH, PROBES, STORED = 512, 500, 2000


def clusters(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Templates of `rows` people around 2,000 look-alike centres, and PROBES new images of some: cosine about 0.6."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((2000, LENGTH), np.float32)
    people = np.empty((rows, LENGTH), np.float32)
    for start in range(0, rows, 100_000):
        part = people[start : start + 100_000]
        part[:] = random.standard_normal(part.shape, np.float32) + 0.7 * centres[random.integers(0, 2000, len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    chosen = people[random.integers(0, rows, PROBES)]
    probes = chosen + 1.33 * random.standard_normal(chosen.shape, np.float32) / np.sqrt(LENGTH)
    return people, (probes / np.linalg.norm(probes, axis=1, keepdims=True)).astype(np.float32)


def exact(people: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """Rows of the highest cosines in float32, block by block."""
    best, rows = np.full(len(probes), -2, np.float32), np.zeros(len(probes), np.int64)
    for start in range(0, len(people), 50_000):
        scores = (torch.from_numpy(probes) @ torch.from_numpy(people[start : start + 50_000]).T).numpy()
        row = scores.argmax(1)
        score = scores[np.arange(len(probes)), row]
        better = score > best
        best[better], rows[better] = score[better], row[better] + start
    return rows


def timed(matrix: Matrix, probes: np.ndarray, batch: int) -> tuple[np.ndarray, float]:
    """Rows found, and the median over batches of milliseconds a probe."""
    found, times = [], []
    for start in range(0, len(probes), batch):
        begin = time.perf_counter()
        found.append(matrix.search(probes[start : start + batch], 1)[1][:, 0])
        times.append((time.perf_counter() - begin) / len(found[-1]))
    return np.concatenate(found), 1000 * float(np.median(times))


def plain_time(people: np.ndarray, probes: np.ndarray) -> float:
    """The plain product and argmax, milliseconds a probe."""
    begin = time.perf_counter()
    exact(people, probes)
    return 1000 * (time.perf_counter() - begin) / len(probes)


def store_rows() -> list[str]:
    """Adding, opening and erasing in the store, where it is installed."""
    try:
        from marginface.gallery.store import Face, Store

        with tempfile.TemporaryDirectory() as folder:
            store = Store(f"{folder}/people.db", write=True)
            vectors = np.random.default_rng(0).standard_normal((STORED, LENGTH), np.float32)
            store.create({}, LENGTH)
            faces = [Face(f"p{i // 4}", "a.jpg", bytes(3000), 1.0, vector) for i, vector in enumerate(vectors)]
            seconds = []
            for work in (lambda: store.add(faces), store.rewrite, store.close, lambda: list(store.faces())):
                begin = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - begin)
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    except ValueError as error:  # InputError: not installed
        return [str(error)]
    return [
        f"The store (a folder), {STORED:,} faces, pictures of 3 kB: add {seconds[0]:.1f} s, load {seconds[3]:.1f} s, "
        f"write anew (`erase`) {seconds[1]:.1f} s, {size / 1e6:.1f} MB."
    ]


def open_large(address: str) -> tuple[float, float, float]:
    """Seconds to open a gallery, seconds to its first answer, and the process's largest memory in GB."""
    from marginface.gallery.models import FaceModel
    from marginface.gallery.people import Gallery
    from marginface.gallery.store import Store

    begin = time.perf_counter()
    gallery = Gallery(Store(address), FaceModel("model", "0", SimpleNamespace(length=LENGTH, quality=False)))
    opened = time.perf_counter() - begin
    gallery.identify(np.ones((1, LENGTH), np.float32) / np.sqrt(LENGTH), 0.5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return opened, time.perf_counter() - begin - opened, peak


def enrol_large(address: str, rows: int) -> float:
    """Seconds to add faces without pictures, four a person, 10,000 a call."""
    from marginface.gallery.models import FaceModel
    from marginface.gallery.people import Gallery
    from marginface.gallery.store import Face, Store

    model = FaceModel("model", "0", SimpleNamespace(length=LENGTH, quality=False))
    gallery = Gallery(Store(address, write=True), model)
    random, seconds = np.random.default_rng(0), 0.0
    for start in range(0, rows, 10_000):
        vectors = random.standard_normal((min(10_000, rows - start), LENGTH), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        faces = [Face(f"p{(start + i) // 4}", "a.jpg", b"", 1.0, vector) for i, vector in enumerate(vectors)]
        begin = time.perf_counter()
        gallery.add(faces)
        seconds += time.perf_counter() - begin
        print(f"{start + len(faces):,} faces in {seconds:.0f} s", end="\r", file=sys.stderr, flush=True)
    gallery.close()
    return seconds


def large_store_rows(rows: int) -> list[str]:
    """Each step in a process of its own, as a command would be."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/people.db"
        processes = multiprocessing.get_context("spawn")
        with processes.Pool(1, maxtasksperchild=1) as pool:
            adding = pool.apply(enrol_large, (address, rows))
            opening, answering, memory = pool.apply(open_large, (address,))
            size = sum(file.stat().st_size for file in Path(address).rglob("*") if file.is_file()) / 1e9
    return [
        f"A store of {rows:,} faces without pictures, four a person (a folder of {size:.2f} GB):",
        "",
        "| step | seconds | memory, GB |",
        "|---|---|---|",
        f"| add, 10,000 a call ({rows / adding:,.0f} faces a second) | {adding:.0f} | |",
        f"| open | {opening:.1f} | {memory:.1f} |",
        f"| pool the vectors, first answer | {answering:.1f} | |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--store", type=int, default=0, help="faces in a large store to enrol and open; 0 for none")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    people, probes = clusters(options.rows)
    truth = exact(people, probes)
    matrix = Matrix(people)
    timed(matrix, probes[:100], 100)  # warm
    found, batch = timed(matrix, probes, 100)
    alone, single = timed(matrix, probes[:40], 1)
    plain = plain_time(people, probes[:100]), float(np.median([plain_time(people, p[None]) for p in probes[:5]]))
    lines = [
        "# Gallery",
        "",
        f"`python benchmarks/gallery.py`, {options.rows:,} vectors of {LENGTH}, "
        f"{torch.get_num_threads()} threads; median.",
        "",
        "| search | ms a probe | goal | plain float32 product in the same run | recall@1 |",
        "|---|---|---|---|---|",
        f"| batches of 100 | {batch:.2f} | 2 | {plain[0]:.2f} | {np.mean(found == truth):.2%} |",
        f"| one probe | {single:.1f} | 50 | {plain[1]:.1f} | {np.mean(alone == truth[:40]):.2%} |",
        "",
        f"Memory of the matrix: {matrix.bytes / 1e9:.2f} GB (float32, and 8-bit where the processor multiplies it).",
        "",
        *store_rows(),
    ]
    del people, matrix
    if options.store:
        lines += ["", *large_store_rows(options.store)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
