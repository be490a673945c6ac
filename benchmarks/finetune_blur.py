"""Fine-tuning on blurred faces: best F1 before and after, on clean and on blurred pictures of people never trained on.

The study of the VN-Celeb fork of AdaFace in small: a model trained on sharp faces is tuned with AdaFace's margin and
augmentations on blurred pictures of its training people, their sharp ones beside. Claims: clearly better on blur, no
worse on sharp pictures. Run `python benchmarks/finetune_blur.py runs/lfw-scratch lfw` (19 minutes on two busy cores),
or with --quick for a look. Writes benchmarks/finetune_blur.md with --write.

lfw holds train/ and val/, aligned faces in a folder a person, and pairs_val.txt.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from marginface.embedder import Embedder
from marginface.loading.augment import AugmentConfig
from marginface.loading.loader import DataConfig
from marginface.metrics.f1 import F1Sweep, f1_sweep
from marginface.protocols.pairs import Pairs, read_pairs
from marginface.training.config import Config, LoopConfig, MarginConfig, TrainerConfig
from marginface.training.finetune import load_start
from marginface.training.optim import OptimConfig
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
                (folder / person.name / file.name).symlink_to(file.resolve())
    return folder


def scores(model: Embedder, pairs: Pairs, sigma: float) -> np.ndarray:
    """Cosine of every pair, float32 (P,)."""
    faces = [cv2.cvtColor(blur(cv2.imread(str(path)), sigma), cv2.COLOR_BGR2RGB) for path in pairs.images]
    embeddings = model.embed(faces)
    return np.einsum("pd,pd->p", embeddings[pairs.first], embeddings[pairs.second])


def gain(before: np.ndarray, after: np.ndarray, same: np.ndarray, replicates: int = 500) -> str:
    """Difference of the best F1 in points with its 95 % interval, bootstrap over pairs."""
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(same), len(same)) for _ in range(replicates)]
    differences = [100 * (best(after[i], same[i])[0] - best(before[i], same[i])[0]) for i in drawn]
    low, high = np.quantile(differences, [0.025, 0.975])
    return f"{100 * (best(after, same)[0] - best(before, same)[0]):+.2f} ({low:+.2f} to {high:+.2f})"


def best(scores: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Highest F1 and its threshold."""
    sweep: F1Sweep = f1_sweep(scores, same)
    return float(sweep.f1[sweep.best]), float(sweep.thresholds[sweep.best])


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
        train=LoopConfig(epochs=arguments.epochs, log_every=20, checkpoint_every=0, refit=arguments.refit),
        trainer=TrainerConfig(precision="bf16-mixed", compile=not arguments.quick),
    )  # fmt: skip
    start_training(config, resume="", numbered=False, command="benchmarks/finetune_blur.py", console=Console())
    return folder / "tuned" / "model"


def table(before: Embedder, after: Embedder, lfw: Path, sigma: float) -> list[str]:
    pairs = read_pairs(lfw / "pairs_val.txt", lfw / "val")
    lines = [
        "| pictures of unseen people | pretrained: best F1 % (threshold) | fine-tuned: best F1 % (threshold) "
        "| difference, 95 % interval |",
        "|---|---|---|---|",
    ]
    for name, width in (("clean", 0.0), (f"blurred, sigma {sigma:g}", sigma)):
        first, second = scores(before, pairs, width), scores(after, pairs, width)
        cells = [f"{100 * f1:.2f} ({cut:.3f})" for f1, cut in (best(s, pairs.same) for s in (first, second))]
        lines.append(f"| {name} | {' | '.join(cells)} | {gain(first, second, pairs.same)} |")
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
    parser.add_argument("--refit", type=float, default=0.1, help="as the base run's train.refit")
    parser.add_argument("--quick", action="store_true", help="200 people, a tenth of the steps")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.epochs = min(arguments.epochs, 1.0)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        people = 200 if arguments.quick else None
        faces = blurred(arguments.lfw / "train", Path(temporary) / "faces", arguments.sigma, True, people)
        tuned = Embedder.load(tune(arguments.model, Path(temporary), faces, arguments))
        lines = table(load_start(arguments.model), tuned, arguments.lfw, arguments.sigma)
    lines += ["", f"{arguments.epochs:g} epochs, {(time.perf_counter() - began) / 60:.1f} minutes."]
    print("\n".join(lines))
    if arguments.write:
        PAGE.write_text(page(lines), encoding="utf-8")


def page(lines: list[str]) -> str:
    about = (__doc__ or "").split("\n\n")
    command = "python benchmarks/finetune_blur.py runs/lfw-scratch lfw --write"
    return "\n".join([
        "# Fine-tuning on blurred faces", "", " ".join(about[1].split(" Run `")[0].split()), "",
        *lines, "", "Intervals: bootstrap over the pairs.", "", "```sh", command, "```", "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
