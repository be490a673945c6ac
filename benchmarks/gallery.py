"""Search among a million faces: time a probe, recall, memory; and what the store costs.

Claims: 1 million vectors of 512 numbers with real identity clusters: in batches of 100 probes at most 2 ms a probe, a
single probe at most 50 ms, recall@1 at least 99 % of exact search. Run `python benchmarks/gallery.py` (about 3 minutes,
7 GB), or with `--rows 20000` for a look. Writes benchmarks/gallery.md with --write.
"""

import argparse
import tempfile
import time
from pathlib import Path

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
    return people, probes / np.linalg.norm(probes, axis=1, keepdims=True)


def exact(people: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """Rows of the highest cosines in float32, block by block."""
    best, rows = np.full(len(probes), -2, np.float32), np.zeros(len(probes), np.int64)
    for start in range(0, len(people), 50_000):
        scores = probes @ people[start : start + 50_000].T
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


def numpy_time(people: np.ndarray, probes: np.ndarray) -> float:
    """The plain product and argmax, milliseconds a probe."""
    begin = time.perf_counter()
    exact(people, probes)
    return 1000 * (time.perf_counter() - begin) / len(probes)


def store_rows() -> list[str]:
    """Adding, opening and erasing in the store, where it is installed."""
    try:
        from marginface.gallery.store import Face, Store

        with tempfile.TemporaryDirectory() as folder:
            store = Store(f"{folder}/people.db")
            vectors = np.random.default_rng(0).standard_normal((STORED, LENGTH), np.float32)
            store.create({}, LENGTH)
            faces = [Face(f"p{i // 4}", "a.jpg", bytes(3000), 1.0, vector) for i, vector in enumerate(vectors)]
            seconds = []
            for work in (lambda: store.add(faces), lambda: list(store.faces()), store.rewrite):
                begin = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - begin)
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
            store.close()
    except ValueError as error:  # InputError: not installed
        return [str(error)]
    return [
        f"The store (a file), {STORED:,} faces with pictures of 3 kB: add {seconds[0]:.1f} s, load {seconds[1]:.1f} s, "
        f"write anew (`erase`) {seconds[2]:.1f} s, {size / 1e6:.1f} MB."
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    people, probes = clusters(options.rows)
    truth = exact(people, probes)
    matrix = Matrix(people)
    timed(matrix, probes[:100], 100)  # warm
    found, batch = timed(matrix, probes, 100)
    alone, single = timed(matrix, probes[:40], 1)
    plain = numpy_time(people, probes[:100]), float(np.median([numpy_time(people, p[None]) for p in probes[:5]]))
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
        f"Memory of the matrix: {matrix.bytes / 1e9:.2f} GB (float32 and 8-bit).",
        "",
        *store_rows(),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
