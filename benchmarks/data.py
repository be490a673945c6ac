"""How fast images reach the model: `python benchmarks/data.py` prints it, with --write also to benchmarks/data.md.

All rates come from one run, alternatives taking turns, and are medians over the rounds. The limit is what the
fastest JPEG decoder does on all cores and nothing else, in threads or processes. A training run starts its loader once
and not each epoch: that is not measured. torchvision is needed for the usual pipeline only.
"""

import argparse
import contextlib
import functools
import itertools
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch

from marginface.convert import convert
from marginface.loading.augment import AugmentConfig
from marginface.loading.loader import DataConfig, Loader
from marginface.loading.published import RESAMPLINGS
from marginface.readers import open_reader
from marginface.readers.recordio_format import MAGIC

BATCH = 128
CORES = os.cpu_count() or 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--index", type=int, default=6_000_000, help="records of the index that is opened")
    parser.add_argument("--write", action="store_true", help="write benchmarks/data.md")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lines = [write_faces(root / "faces", options.images), ""]
        convert(str(root / "faces"), root / "recordio", "recordio")
        contenders = alternatives(root)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, run in contenders.items():
                rates[name].append(run())
        lines += report({name: statistics.median(values) for name, values in rates.items()})
        write_index(root / "large", options.index)
        opened = [sys.executable, __file__, "--open", str(root / "large")]
        lines += ["", subprocess.run(opened, check=True, capture_output=True, text=True).stdout.strip()]
    print("\n".join(lines))
    if options.write:
        words = (
            f"`python benchmarks/data.py --images {options.images} --rounds {options.rounds}`; medians of the rounds"
        )
        head = f"# From records on disk to batches\n\n{words}, alternatives taking turns.\n\n"
        Path(__file__).with_suffix(".md").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def write_faces(folder: Path, count: int) -> str:
    """Procedural faces as JPEGs of quality 95, every one ten times; 20 images an identity. Returns what they are."""
    distinct = max(20, count // 10)
    reader = open_reader(f"synthetic:identities={distinct // 20 or 1},images=20")
    encoded = []
    for start in range(0, len(reader), BATCH):
        for record in reader.read(range(start, min(start + BATCH, len(reader)))):
            pixels = cv2.cvtColor(np.asarray(record.image), cv2.COLOR_RGB2BGR)
            encoded.append(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    for number in range(count):
        path = folder / f"{number // 20:05d}" / f"{number % 20:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[number % len(encoded)])
    size = statistics.mean(map(len, encoded)) / 1000
    return f"{count:,} JPEGs of {size:.1f} KB, {CORES} cores, OpenCV {cv2.__version__}, torch {torch.__version__}"


def alternatives(root: Path) -> dict[str, Callable[[], float]]:
    """{what is measured: a run over the whole set that returns images a second}."""
    reader = open_reader(root / "recordio")
    images = [bytes(record.image) for record in reader.read(range(len(reader)))]
    adaface = AugmentConfig(adaface_crop=0.2, adaface_low_res=0.2, adaface_photometric=0.2)
    found: dict[str, Callable[[], float]] = {
        "bare decode, simplejpeg, one core": lambda: decode_all(images, _simplejpeg, 1),
        "bare decode, simplejpeg": lambda: decode_all(images, _simplejpeg, CORES),
        "bare decode, simplejpeg, processes": lambda: decode_in_processes(images),
        "bare decode, OpenCV": lambda: decode_all(images, _opencv, CORES),
        "marginface, RecordIO": lambda: load_all(reader, AugmentConfig()),
        "files of the folder, read and no more": lambda: read_all(root / "faces"),
        "marginface, folder": lambda: load_all(open_reader(root / "faces"), AugmentConfig()),
        "marginface, AdaFace's three": lambda: load_all(reader, adaface),
    }
    try:
        import torchvision  # noqa: F401
    except ImportError:
        print("torchvision is not installed: the usual pipeline is not measured", file=sys.stderr)
        return found
    paths = sorted((root / "faces").glob("*/*.jpg"))
    for workers, pil in ((0, False), (2, False), (2, True)):
        name = f"DataLoader, {workers} workers" + (", AdaFace's three" if pil else "")
        found[name] = functools.partial(usual, paths, workers, pil)
    return found


def _simplejpeg(data: bytes, out: np.ndarray) -> None:
    simplejpeg.decode_jpeg(data, buffer=out)


def _opencv(data: bytes, out: np.ndarray) -> None:
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def decode_all(images: list[bytes], decoder: Callable[[bytes, np.ndarray], None], threads: int) -> float:
    def run(start: int) -> None:
        out = np.empty((112, 112, 3), np.uint8)
        for data in images[start::threads]:
            decoder(data, out)

    return on_threads(run, threads, len(images))


def on_threads(run: Callable[[int], None], threads: int, count: int) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(threads)))
    return count / (time.perf_counter() - start)


def decode_in_processes(images: list[bytes]) -> float:
    """As `decode_all` on all cores, without Python's lock between them; the slowest counts."""
    context = multiprocessing.get_context("fork")
    together, rates = context.Barrier(CORES), context.Queue()

    def run(start: int) -> None:
        part = images[start::CORES]
        together.wait()
        rates.put(decode_all(part, _simplejpeg, 1))

    processes = [context.Process(target=run, args=(start,)) for start in range(CORES)]
    for process in processes:
        process.start()
    slowest = min(float(rates.get()) for _ in processes)
    for process in processes:
        process.join()
    return slowest * CORES


def read_all(folder: Path) -> float:
    """What the system takes to hand over files in random order, on all cores."""
    paths = list(folder.glob("*/*.jpg"))
    random.Random(0).shuffle(paths)

    def run(start: int) -> None:
        for path in paths[start::CORES]:
            path.read_bytes()

    return on_threads(run, CORES, len(paths))


def load_all(reader: Any, augment: AugmentConfig) -> float:
    """The loader of a training run: records in random order -> decoded, flipped uint8 batches."""
    loader = Loader(reader, DataConfig(train="faces", batch_size=BATCH, workers=CORES, augment=augment), seed=0)
    with contextlib.closing(loader.start(0)) as batches:
        return steady(torch.from_numpy(batch.images) for batch in itertools.islice(batches, len(reader) // BATCH + 1))


def steady(batches: Iterator[torch.Tensor]) -> float:
    """Images a second from the first batch on, which takes the start of the workers."""
    next(batches)
    start = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    return count / (time.perf_counter() - start)


def usual(paths: list[Path], workers: int, pil: bool) -> float:
    """What most repositories do: a Dataset that decodes one image, transforms of one image, float batches."""
    from torchvision import transforms

    steps = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    augmentation = [transforms.Lambda(PerSample(0.2))] if pil else []
    transform = transforms.Compose([transforms.ToPILImage(), *augmentation, *steps])
    loader = torch.utils.data.DataLoader(
        UsualDataset(paths, transform), batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True
    )
    return steady(iter(loader))


class UsualDataset(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, paths: list[Path], transform: Callable[[np.ndarray], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(cv2.cvtColor(cv2.imread(str(self.paths[index])), cv2.COLOR_BGR2RGB))


class PerSample:
    """AdaFace's crop, low resolution and photometric changes as its trainer makes them: an image at a time, by PIL."""

    def __init__(self, probability: float) -> None:
        from torchvision import transforms

        self.probability = probability
        self.box = transforms.RandomResizedCrop(112, scale=(0.2, 1.0), ratio=(0.75, 1.333))
        self.jitter = transforms.ColorJitter(0.5, 0.5, 0.5, 0)

    def __call__(self, image: Any) -> Any:
        from PIL import Image

        if np.random.random() < self.probability:
            top, left, height, width = self.box.get_params(image, self.box.scale, self.box.ratio)
            black = np.zeros_like(np.array(image))
            cut = np.array(image.crop((left, top, left + width, top + height)))
            black[top : top + height, left : left + width] = cut
            image = Image.fromarray(black)
        if np.random.random() < self.probability:
            side = int(112 * np.random.uniform(0.2, 1.0))
            down, up = np.random.choice(RESAMPLINGS, 2).tolist()
            small = cv2.resize(np.array(image), (side, side), interpolation=down)
            image = Image.fromarray(cv2.resize(small, (112, 112), interpolation=up))
        if np.random.random() < self.probability:
            image = self.jitter(image)
        return image


def report(rates: dict[str, float]) -> list[str]:
    limit = max(rate for name, rate in rates.items() if name.startswith("bare decode"))
    lines = ["| | images/s | of the limit |", "|---|--:|--:|"]
    lines += [f"| {name} | {rate:,.0f} | {rate / limit:.0%} |" for name, rate in rates.items()]
    lines += ["", f"Of the limit, RecordIO: {rates['marginface, RecordIO'] / limit:.0%} (goal 90 %)."]
    if "DataLoader, 2 workers" in rates:
        plain = rates["marginface, RecordIO"] / rates["DataLoader, 2 workers"]
        pil = rates["marginface, AdaFace's three"] / rates["DataLoader, 2 workers, AdaFace's three"]
        lines.append(f"Times a plain DataLoader: {plain:.2f} (goal 3.5); with AdaFace's three: {pil:.2f} (goal 3).")
    return lines


def write_index(folder: Path, count: int) -> None:
    """A RecordIO set of `count` tiny images in InsightFace's layout, 70 of each identity."""
    folder.mkdir()
    classes = -(-count // 70)
    keys = np.arange(1, count + classes + 1)
    words = np.zeros((len(keys), 14), dtype="<u4")
    words[:, 0], words[:, 1] = MAGIC, 48
    words[:, 3] = ((keys - 1) // 70).astype("<f4").view("<u4")
    words[:, 4] = keys
    start = 1 + np.arange(classes) * 70
    ranges = np.stack([start, np.minimum(start + 70, count + 1)], axis=1)
    offsets = np.concatenate([np.arange(count) * 56, count * 56 + np.arange(classes) * 40])
    header = np.array([[MAGIC, 32, 2, 0, 0, 0, 1, 0, 0, 0]], dtype="<u4")
    identities = np.repeat(header, classes, axis=0)
    identities[:, 8:] = ranges.astype("<f4").view("<u4")
    header[:, 8:] = np.array([count + 1, count + classes + 1], dtype="<f4").view("<u4")
    with (folder / "train.rec").open("wb") as file:
        for part in (words[:count], identities, header):
            file.write(part.tobytes())
    with (folder / "train.idx").open("w") as file:
        for lines in _lines(keys, offsets):
            file.write(lines)
        file.write(f"0\t{count * 56 + classes * 40}\n")


def _lines(keys: np.ndarray, offsets: np.ndarray) -> Iterator[str]:
    for start in range(0, len(keys), 100_000):
        part = slice(start, start + 100_000)
        yield "".join(f"{k}\t{o}\n" for k, o in zip(keys[part].tolist(), offsets[part].tolist(), strict=True))


def open_large(folder: Path) -> None:
    """Time and memory of opening, in a process of its own."""
    start = time.perf_counter()
    reader = open_reader(folder)
    opened = time.perf_counter() - start
    start = time.perf_counter()
    labels = reader.labels
    labelled = time.perf_counter() - start
    print(f"An index of {len(reader):,} records: opened in {opened:.2f} s (goal 2), labels in {labelled:.2f} s,")
    tracemalloc.start()  # what is taken, without the pages of the file that the system may take back
    opened_again = open_reader(folder)
    print(f"{tracemalloc.get_traced_memory()[1] / 1e6:.0f} MB at the peak of opening (goal 100),", end=" ")
    print(f"{len(opened_again.labels) and tracemalloc.get_traced_memory()[0] / 1e6:.0f} MB kept with the labels,")
    tracemalloc.stop()
    indices = np.random.default_rng(0).integers(0, len(reader), 100_000).tolist()
    start = time.perf_counter()
    assert all(record.label == labels[i] for record, i in zip(reader.read(indices), indices, strict=True))
    print(f"then {100_000 / (time.perf_counter() - start):,.0f} records/s in random order.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--open"]:
        open_large(Path(sys.argv[2]))
    else:
        main()
