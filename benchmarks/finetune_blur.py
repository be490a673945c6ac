"""Fine-tuning on blurred faces: best F1 before and after, on clean and on blurred pictures of people never trained on.

The study of the VN-Celeb fork of AdaFace in small: a model trained on sharp faces is tuned with AdaFace's margin and
augmentations on blurred pictures of its training people, their sharp ones beside; then its embedding layer is refitted
on the sharp ones alone. Claims: clearly better on blur, no worse on sharp pictures. Run
`python benchmarks/finetune_blur.py runs/lfw-scratch lfw` (19 minutes on two busy cores), or with --quick for a look.
Writes the first part of benchmarks/finetune_blur.md with --write; its sections about other runs stay.

lfw holds train/ and val/, aligned faces in a folder a person, and pairs_val.txt.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from marginface.backbones.preprocess import normalise
from marginface.embedder import Embedder
from marginface.loading.augment import AugmentConfig
from marginface.loading.loader import DataConfig, Loader
from marginface.protocols.draw import draw_pairs
from marginface.protocols.pairs import read_pairs
from marginface.readers import open_reader
from marginface.training.config import Config, LoopConfig, MarginConfig, TrainerConfig
from marginface.training.finetune import load_start
from marginface.training.optim import OptimConfig
from marginface.training.refit import refit_embedding
from marginface.training.start import start_training

ADAFACE = {"flip": 0.5, "adaface_crop": 0.2, "adaface_low_res": 0.2, "adaface_photometric": 0.2}
PAGE = Path(__file__).with_suffix(".md")


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image


def blurred(faces: Path, folder: Path, sigma: float, beside: bool, people: int | None = None) -> Path:
    """Blurred copies of all faces, JPEG at quality 95; with `beside` the sharp ones lie in the same folders."""
    for person in sorted(path for path in faces.iterdir() if path.is_dir())[:people]:
        (folder / person.name).mkdir(parents=True)
        for file in sorted(person.iterdir()):
            picture = blur(cv2.imread(str(file)), sigma)
            cv2.imwrite(str(folder / person.name / f"blur_{file.stem}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
            if beside:
                shutil.copy(file, folder / person.name)
    return folder


class Trials(NamedTuple):
    """Pairs of pictures: indices into the files of val (P,), whether one person (P,), the person of each file (N,)."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    people: np.ndarray


def trials(lfw: Path, files: list[Path]) -> dict[str, Trials]:
    """The 1,000 published pairs, and as many as there are (4,000) of each half of the people."""
    names = sorted({file.parent.name for file in files})
    people = np.array([names.index(file.parent.name) for file in files])
    pairs = read_pairs(lfw / "pairs_val.txt", lfw / "val")
    places = np.array([files.index(path) for path in pairs.images])
    found = {"pairs_val.txt": Trials(places[pairs.first], places[pairs.second], np.asarray(pairs.same), people)}
    halves = np.random.default_rng(7).permutation(len(names)) % 2  # of the people
    for half, name in enumerate(("the half it was chosen on", "the other half")):
        mine = np.flatnonzero(halves[people] == half)
        first, second, same = draw_pairs(people[mine], 1, None, 1, most_each=2000)
        found[name] = Trials(mine[first], mine[second], same, people)
    return found


def embeddings(model: Embedder, files: list[Path], sigma: float) -> np.ndarray:
    return model.embed([cv2.cvtColor(blur(cv2.imread(str(path)), sigma), cv2.COLOR_BGR2RGB) for path in files])


def best(scores: np.ndarray, same: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Highest F1 in percent over all thresholds, and its threshold; pairs may count more than once."""
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(-scores)
    right, taken = np.cumsum((weights * same)[order]), np.cumsum(weights[order])
    f1 = 200 * right / (taken + right[-1])
    return float(f1.max()), float(scores[order][np.argmax(f1)])


def gain(before: np.ndarray, after: np.ndarray, pairs: Trials, replicates: int = 500) -> str:
    """Difference of the best F1 in points with its 95 % interval, bootstrap over people."""
    random, people = np.random.default_rng(0), len(np.unique(pairs.people))
    differences = []
    for _ in range(replicates):
        times = np.bincount(random.integers(0, people, people), minlength=people)
        left, right = times[pairs.people[pairs.first]], times[pairs.people[pairs.second]]
        weights = np.where(pairs.same, left, left * right)
        differences.append(best(after, pairs.same, weights)[0] - best(before, pairs.same, weights)[0])
    low, high = np.quantile(differences, [0.025, 0.975])
    return f"{best(after, pairs.same)[0] - best(before, pairs.same)[0]:+.2f} ({low:+.2f} to {high:+.2f})"


def refitted(folder: Path, faces: Path, shrinkage: float) -> Embedder:
    """The model with its embedding layer once more, in closed form, from `faces` as they are.

    A blurred copy beside its original says nothing of how two photographs of a person differ: with most people having
    one photograph, such pairs would rule the covariance within people.
    """
    model = Embedder.load(folder)
    loader = Loader(open_reader(str(faces)), DataConfig(train=str(faces), batch_size=64), seed=0)
    constants, count = model.preprocessing, len(loader.reader)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for indices in np.array_split(np.arange(count), -(-count // 64)):
            images, labels = loader.plain(indices)
            yield normalise(torch.from_numpy(images), constants.mean, constants.std), torch.from_numpy(labels)

    refit_embedding(model.backbone, batches, count, shrinkage)
    return model


def tune(model: str, folder: Path, faces: Path, arguments: argparse.Namespace) -> Path:
    """The fine-tuned model's folder."""
    data = DataConfig(train=str(faces), batch_size=64, cache=True, augment=AugmentConfig(**ADAFACE))
    config = Config(
        name="tuned",
        output=str(folder),
        init_from=model,
        data=data,
        margin=MarginConfig("adaface", {"s": arguments.s, "m": arguments.m, "h": 0.333}),
        optim=OptimConfig(
            name="adamw", lr=arguments.lr, weight_decay=0.1, schedule="cosine", warmup_epochs=0.2,
            clip_norm=5, ema=0.99, first_layer=0.3,
        ),
        train=LoopConfig(epochs=arguments.epochs, log_every=20, checkpoint_every=0),
        trainer=TrainerConfig(precision="bf16-mixed", compile=not arguments.quick),
    )  # fmt: skip
    start_training(config, resume="", numbered=False, command="benchmarks/finetune_blur.py", console=Console())
    return folder / "tuned" / "model"


def table(before: Embedder, after: Embedder, lfw: Path, sigma: float) -> list[str]:
    files = sorted((lfw / "val").glob("*/*"))
    lines = [
        "| pairs of unseen people | pictures | pretrained: best F1 % (threshold) | fine-tuned: best F1 % (threshold) "
        "| difference, 95 % interval |",
        "|---|---|---|---|---|",
    ]
    widths = {"clean": 0.0, f"blurred, sigma {sigma:g}": sigma}
    embedded = {name: [embeddings(model, files, widths[name]) for model in (before, after)] for name in widths}
    for title, pairs in trials(lfw, files).items():
        for name, both in embedded.items():
            first, second = (np.einsum("pd,pd->p", x[pairs.first], x[pairs.second]) for x in both)
            cells = [f"{f1:.2f} ({cut:.3f})" for f1, cut in (best(s, pairs.same) for s in (first, second))]
            row = [f"{title} ({len(pairs.same):,})", name, *cells, gain(first, second, pairs)]
            lines.append(f"| {' | '.join(row)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the model trained on sharp faces: a run's folder")
    parser.add_argument("lfw", type=Path)
    parser.add_argument("--sigma", type=float, default=3.0, help="of the Gaussian blur, in pixels of 112")
    parser.add_argument("--epochs", type=float, default=2.5)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--s", type=float, default=24.0, help="AdaFace's scale; the base run's, as people are few")
    parser.add_argument("--m", type=float, default=0.2)
    parser.add_argument("--refit", type=float, default=0.2, help="shrinkage of the refit of the embedding layer")
    parser.add_argument("--quick", action="store_true", help="200 people, a tenth of the steps")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.epochs = min(arguments.epochs, 1.0)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        people = 200 if arguments.quick else None
        faces = blurred(arguments.lfw / "train", Path(temporary) / "faces", arguments.sigma, True, people)
        tuned = refitted(
            tune(arguments.model, Path(temporary), faces, arguments), arguments.lfw / "train", arguments.refit
        )
        lines = table(load_start(arguments.model), tuned, arguments.lfw, arguments.sigma)
    lines += ["", f"{arguments.epochs:g} epochs, {(time.perf_counter() - began) / 60:.1f} minutes."]
    print("\n".join(lines))
    if arguments.write:
        PAGE.write_text(page(lines), encoding="utf-8")


def page(lines: list[str]) -> str:
    about = (__doc__ or "").split("\n\n")
    sections = PAGE.read_text(encoding="utf-8").partition("\n## ") if PAGE.exists() else ("", "", "")
    command = "python benchmarks/finetune_blur.py runs/lfw-scratch lfw --write"
    return "\n".join([
        "# Fine-tuning on blurred faces", "", " ".join(about[1].split(" Claims:")[0].split()), "",
        *lines, "", "Intervals: bootstrap over people.", "", "```sh", command, "```", "",
    ]) + "".join(sections[1:])  # fmt: skip


if __name__ == "__main__":
    main()
