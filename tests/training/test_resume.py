"""Exact resume: a run killed at any moment and resumed gives the same weights, bit for bit."""

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from marginface import cli
from marginface.loading.loader import Batch
from marginface.loading.sampler import Batches, epoch_order
from marginface.training.checkpoint import Progress
from marginface.training.loop import Trainer
from marginface.training.optim import OptimConfig, learning_rate
from marginface.training.run import Run
from people import write_people
from training_ranks import command, configure, join, processes

EVERYTHING_WITH_STATE = [
    "--model.backbone=small", "--model.num_features=32", "--model.options.width=8",
    "--data.batch_size=16", "--data.augment.flip=0.5", "--margin.name=adaface", "--margin.options={}",
    "--margin.warmup_epochs=1", "--optim.ema=0.9", "--train.epochs=3", "--train.checkpoint_every=4",
    "--train.log_every=1", "--train.eval_every=5",
]  # fmt: skip


def start(folder: Path, name: str, *words: str) -> BaseProcess:
    """`marginface train`, in a process of its own; what it says goes to name.log.0."""
    (process,) = processes(1, command, folder / f"{name}.log", ["train", f"--output={folder / 'runs'}", *words])
    return process


def finish(folder: Path, name: str, *words: str) -> None:
    assert join([start(folder, name, *words)]) == [0], said(folder, name)


def said(folder: Path, name: str) -> str:
    return (folder / f"{name}.log.0").read_text()


def rows(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().splitlines()


def wait_for(check: Callable[[], bool], process: BaseProcess, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.is_alive():
        if check():
            return
        time.sleep(0.01)
    pytest.fail("the run ended or stalled before it could be interrupted")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run, and the words that make it."""
    folder = tmp_path_factory.mktemp("resume")
    people = write_people(folder / "people")
    words = [*EVERYTHING_WITH_STATE, f"--data.train={people}", f"--data.val=[{people}]"]
    finish(folder, "undisturbed", "--name=undisturbed", *words)
    return folder, words


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def values(folder: Path) -> list[str]:
    """metrics.csv without the columns that tell of the time it took."""
    return [",".join(row.split(",")[:4] + row.split(",")[7:]) for row in rows(folder)]


@pytest.mark.parametrize("moment", [5, 10])  # after a checkpoint at 4 and 8; mid-epoch, as an epoch has 6 steps
def test_sigkill_mid_epoch(undisturbed: tuple[Path, list[str]], moment: int) -> None:
    folder, words = undisturbed
    killed = folder / "runs" / f"killed-{moment}"
    process = start(folder, killed.name, f"--name={killed.name}", *words)
    seen = lambda: (killed / "metrics.csv").is_file() and any(r.startswith(f"{moment},") for r in rows(killed))  # noqa: E731
    wait_for(seen, process)
    process.kill()
    assert join([process]) == [-signal.SIGKILL]
    assert not (killed / "model").exists()
    finish(folder, killed.name, f"--resume={killed}")
    assert weights(killed) == weights(folder / "runs" / "undisturbed")
    assert values(killed) == values(folder / "runs" / "undisturbed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop_says_how_to_go_on(undisturbed: tuple[Path, list[str]], number: signal.Signals) -> None:
    folder, words = undisturbed
    stopped = folder / "runs" / f"stopped-{number}"
    process = start(folder, stopped.name, f"--name={stopped.name}", *words)
    wait_for(lambda: (stopped / "metrics.csv").is_file() and len(rows(stopped)) > 3, process)
    os.kill(process.pid or 0, number)
    assert join([process]) == [128 + number]
    assert f"marginface train --resume {stopped}" in said(folder, stopped.name)
    finish(folder, stopped.name, f"--resume={stopped}")
    assert weights(stopped) == weights(folder / "runs" / "undisturbed")


def test_another_architecture_is_refused(
    undisturbed: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = undisturbed
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", f"--resume={folder / 'runs' / 'undisturbed'}", "--model.num_features=16"])
    assert "names another network than the checkpoint holds" in capsys.readouterr().err


@pytest.mark.parametrize(("before", "after"), [(8, 16), (16, 8), (12, 16)])
def test_another_batch_size_goes_on_by_images_seen(
    before: int, after: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """96 images: half of the second of three epochs is done; each image of the rest is seen once."""
    people = write_people(tmp_path / "people")
    words = [*EVERYTHING_WITH_STATE, "--train.eval_every=0", "--data.val=[]", f"--output={tmp_path}", "--name=run"]
    words += [f"--data.train={people}", "--optim.schedule=cosine", "--optim.warmup_epochs=1"]
    cli.main(["train", *words, f"--data.batch_size={before}", "--train.epochs=1.5"])
    seen: list[np.ndarray] = []
    train_step = Trainer.train_step

    def watched(self: Trainer, batch: Batch, run: Run) -> Tensor:
        seen.append(batch.indices)
        return train_step(self, batch, run)

    monkeypatch.setattr(Trainer, "train_step", watched)
    capsys.readouterr()
    cli.main(["train", "--resume", str(tmp_path / "run"), f"--data.batch_size={after}", "--train.epochs=3"])
    assert "going on at epoch 1.500, by images seen" in " ".join(capsys.readouterr().out.split())
    first, last = np.split(np.concatenate(seen), [48])
    assert np.array_equal(first, epoch_order(96, 42, 1)[48:])
    assert np.array_equal(last, epoch_order(96, 42, 2))
    table = [
        dict(zip(rows(tmp_path / "run")[0].split(","), row.split(","), strict=True))
        for row in rows(tmp_path / "run")[1:]
    ]
    steps = [int(row["step"]) for row in table]
    assert steps == list(range(1, 144 // before + 144 // after + 1))
    assert [float(row["epoch"]) for row in table][-1] == 3
    for row, following in pairwise(table):
        assert float(following["epoch"]) - float(row["epoch"]) == pytest.approx(
            (before if int(following["step"]) <= 144 // before else after) / 96, abs=1e-5
        )
        if int(row["step"]) > 144 // before:
            epoch = float(row["epoch"]) - after / 96  # the rate is that of the beginning of the step
            assert float(row["lr"]) == pytest.approx(
                learning_rate(OptimConfig(lr=0.1, schedule="cosine", warmup_epochs=1), epoch, 3), rel=1e-4
            )


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 10**4), st.integers(40, 500))
def test_a_place_among_other_batches(before: int, after: int, position: int, length: int) -> None:
    """Never beyond the images seen, and less than a batch before them; another change leads back as near."""
    old, new = (Batches(length, size, lambda _: np.arange(length)) for size in (before, after))
    progress = Progress(0, position, before, old.per_epoch)
    found = progress.position_for(new)
    epoch, turn = divmod(position, old.per_epoch)
    place = found - epoch * new.per_epoch
    assert place * after <= turn * before
    assert place == new.per_epoch or turn * before - place * after < after
    assert progress.position_for(old) == position


def test_a_warm_up_begins_above_zero(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", people=6)
    config = configure(people, **{"optim.warmup_epochs": 2.0, "optim.lr": 0.4})
    trainer = Trainer(config, Fabric(accelerator="cpu", devices=1), Console(quiet=True))
    rates = []
    for trainer.step in range(6):
        rates.append(trainer._schedule()[0])
    assert rates[:5] == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.4])
