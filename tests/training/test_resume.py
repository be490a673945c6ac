"""Exact resume: a run killed at any moment and resumed gives the same weights, bit for bit."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from people import write_people

STEPS_PER_EPOCH = 6  # 96 images in batches of 16
EVERYTHING_WITH_STATE = [
    "--model.backbone=small", "--model.num_features=32", "--model.options.width=8",
    "--data.batch_size=16", "--data.augment.flip=0.5", "--margin.name=adaface", "--margin.options={}",
    "--margin.warmup_epochs=1", "--optim.ema=0.9", "--train.epochs=3", "--train.checkpoint_every=4",
    "--train.log_every=1", "--train.eval_every=5",
]  # fmt: skip


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "marginface", "train", f"--output={folder / 'runs'}", *words]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *words), capture_output=True, text=True, timeout=300)


def rows(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().splitlines()


def wait_for(check: object, process: subprocess.Popen[bytes], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if check():  # type: ignore[operator]
            return
        time.sleep(0.01)
    pytest.fail("the run ended or stalled before it could be interrupted")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run, and the words that make it."""
    folder = tmp_path_factory.mktemp("resume")
    people = write_people(folder / "people")
    words = [*EVERYTHING_WITH_STATE, f"--data.train={people}", f"--data.val=[{people}]"]
    done = run(folder, "--name=undisturbed", *words)
    assert done.returncode == 0, done.stderr
    return folder, words


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def values(folder: Path) -> list[str]:
    """metrics.csv without the columns that tell of the time it took."""
    return [",".join(row.split(",")[:4] + row.split(",")[7:]) for row in rows(folder)]


# after a checkpoint at 4 and 8; mid-epoch, as an epoch has 6 steps
@pytest.mark.parametrize("moment", [pytest.param(5, marks=pytest.mark.slow), 10])
def test_sigkill_mid_epoch(undisturbed: tuple[Path, list[str]], moment: int) -> None:
    folder, words = undisturbed
    killed = folder / "runs" / f"killed-{moment}"
    with subprocess.Popen(command(folder, f"--name={killed.name}", *words), stdout=subprocess.DEVNULL) as process:
        seen = lambda: (killed / "metrics.csv").is_file() and any(r.startswith(f"{moment},") for r in rows(killed))  # noqa: E731
        wait_for(seen, process)
        process.send_signal(signal.SIGKILL)
    assert not (killed / "model").exists()
    resumed = run(folder, f"--resume={killed}")
    assert resumed.returncode == 0, resumed.stderr
    assert weights(killed) == weights(folder / "runs" / "undisturbed")
    assert values(killed) == values(folder / "runs" / "undisturbed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop_says_how_to_go_on(undisturbed: tuple[Path, list[str]], number: signal.Signals) -> None:
    folder, words = undisturbed
    stopped = folder / "runs" / f"stopped-{number}"
    with subprocess.Popen(
        command(folder, f"--name={stopped.name}", *words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: (stopped / "metrics.csv").is_file() and len(rows(stopped)) > 3, process)
        process.send_signal(number)
        assert process.stderr is not None
        message = process.stderr.read().decode()
    assert process.returncode == 128 + number
    assert f"marginface train --resume {stopped}" in message
    assert run(folder, f"--resume={stopped}").returncode == 0
    assert weights(stopped) == weights(folder / "runs" / "undisturbed")


def test_another_architecture_is_refused(undisturbed: tuple[Path, list[str]]) -> None:
    folder, _ = undisturbed
    refused = run(folder, f"--resume={folder / 'runs' / 'undisturbed'}", "--model.num_features=16")
    assert refused.returncode == 2
    assert "holds another backbone than the configuration names" in refused.stderr
