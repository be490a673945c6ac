"""Exact resume: a run killed at any moment and resumed gives the same weights, bit for bit."""

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from marginface import cli
from people import write_people
from training_ranks import command, join, processes

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
