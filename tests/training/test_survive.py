"""Faults that long runs meet, each really done to one: killed, stopped, a full disk, damage, two at once."""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from marginface import cli
from marginface.loading import loader
from marginface.training.loop import Trainer
from marginface.training.run import Run
from marginface.weights.opening import load
from marginface.weights.state import list_states
from people import write_people
from training_ranks import command, join, limited, processes, soak

WORDS = [
    "--model.backbone=small", "--model.num_features=16", "--model.options.width=4", "--data.val=[]",
    "--data.batch_size=12", "--data.cache=true", "--data.augment.flip=0.5", "--optim.ema=0.9", "--margin.name=adaface",
    "--margin.options={}", "--train.checkpoint_every=3", "--train.log_every=1", "--trainer.accelerator=cpu",
    "--trainer.timeout=200",
]  # fmt: skip
STEPS_PER_EPOCH = 8  # 96 images in batches of 12


class Runs:
    """Runs in a folder, as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.people = folder, write_people(folder / "people")

    def words(self, name: str, *more: str) -> list[str]:
        return ["train", f"--output={self.folder}", f"--data.train={self.people}", *WORDS, f"--name={name}", *more]

    def start(
        self, name: str, *more: str, size: int = 1, environment: dict[str, str] | None = None
    ) -> list[BaseProcess]:
        self.log(name, size, clear=True)
        return processes(size, command, self.folder / f"{name}.log", self.words(name, *more), environment)

    def finish(self, name: str, *more: str, size: int = 1, environment: dict[str, str] | None = None) -> None:
        codes = join(self.start(name, *more, size=size, environment=environment))
        assert codes == [0] * size, self.log(name, size)

    def log(self, name: str, size: int = 1, clear: bool = False) -> str:
        files = [self.folder / f"{name}.log.{rank}" for rank in range(size)]
        text = "".join(file.read_text() for file in files if file.is_file())
        for file in files if clear else ():
            file.unlink(missing_ok=True)
        return " ".join(text.split())

    def steps(self, name: str) -> int:
        """The last step in metrics.csv."""
        try:
            last = (self.folder / name / "metrics.csv").read_text().splitlines()[-1]
        except (OSError, IndexError):
            return 0
        return int(last.split(",")[0]) if last.split(",")[0].isdigit() else 0

    def beyond(self, name: str, seen: int, place: int) -> bool:
        """Whether the run has come further than `seen`, to some place between two checkpoints or upon one."""
        return self.steps(name) > seen and self.steps(name) % 6 == place

    def wait(self, group: list[BaseProcess], reached: Callable[[], bool]) -> None:
        end = time.monotonic() + 300
        while not reached():
            assert time.monotonic() < end
            assert any(process.is_alive() for process in group), f"it ended before it could be disturbed: {self.last()}"
            time.sleep(0.005)

    def last(self) -> str:
        """What was said last, by whichever run."""
        newest = max(self.folder.glob("*.log.*"), key=lambda file: file.stat().st_mtime)
        return newest.read_text()[-3000:]

    def weights(self, name: str) -> bytes:
        return (self.folder / name / "model" / "model.safetensors").read_bytes()

    def stopped(self, name: str, *more: str, size: int = 1, at: int = 7) -> str:
        """A run that was asked to stop, by SIGTERM to the last of its processes; returns what it said."""
        group = self.start(name, *more, size=size)
        self.wait(group, lambda: self.steps(name) >= at)
        os.kill(group[-1].pid or 0, signal.SIGTERM)
        assert join(group) == [128 + signal.SIGTERM] * size, self.log(name, size)
        return self.log(name, size)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """With a run `whole` that nothing disturbed."""
    found = Runs(tmp_path_factory.mktemp("survive"))
    found.finish("whole", "--train.epochs=5")
    return found


@pytest.mark.parametrize(("times", "epochs"), [(2, 5), pytest.param(20, 75, marks=pytest.mark.slow)])
def test_killed_again_and_again(times: int, epochs: int, runs: Runs) -> None:
    undisturbed = "whole" if epochs == 5 else f"whole-{epochs}"
    if epochs != 5:
        runs.finish(undisturbed, f"--train.epochs={epochs}")
    draw, name, kills = random.Random(0), f"killed-{times}", 0
    while kills < times:
        seen = runs.steps(name)
        group = runs.start(name, f"--train.epochs={epochs}", "--resume=auto")
        runs.wait(group, partial(runs.beyond, name, seen, draw.randint(0, 5)))
        os.kill(group[0].pid or 0, signal.SIGKILL)
        assert join(group) == [-signal.SIGKILL]
        kills += 1
    runs.finish(name, f"--train.epochs={epochs}", "--resume=auto")
    assert runs.weights(name) == runs.weights(undisturbed)
    steps = [line.split(",")[0] for line in (runs.folder / name / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(1, epochs * STEPS_PER_EPOCH + 1)]


def test_one_of_two_is_asked_to_stop(runs: Runs) -> None:
    said = runs.stopped("two", "--train.epochs=1000", size=2)
    assert "stopped after step" in said
    assert f"go on with: marginface train --resume {runs.folder / 'two'}" in said
    (newest, *_) = list_states(runs.folder / "two" / "checkpoints")
    assert sorted(path.name for path in newest.iterdir()) == ["part-0.safetensors", "part-1.safetensors", "state.json"]
    model = load(runs.folder / "two")  # without any process group
    assert model.notes["checkpoint"] == newest.name
    assert model.embed(np.zeros((1, 112, 112, 3), np.uint8)).shape == (1, 16)
    runs.finish("two", "--resume=auto", f"--train.epochs={(int(newest.name[6:]) + 3) / STEPS_PER_EPOCH}")  # alone


@pytest.mark.slow  # waits for a time-out
def test_one_of_three_is_killed(runs: Runs) -> None:
    group = runs.start("three", "--train.epochs=1000", "--trainer.timeout=30", size=3)
    runs.wait(group, lambda: runs.steps("three") >= 7)
    os.kill(group[1].pid or 0, signal.SIGKILL)
    began = time.monotonic()
    assert join(group) == [75, -signal.SIGKILL, 75], runs.log("three", 3)
    assert time.monotonic() - began < 60  # 30, and what it takes a busy machine to end them
    said = runs.log("three", 3)
    assert re.search("another process of this run (ended|did not answer)", said), said
    assert f"marginface train --resume {runs.folder / 'three'}" in said
    (newest, *_) = list_states(runs.folder / "three" / "checkpoints")
    # as torchrun starts them again: the same words
    again = {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "1"}
    runs.finish("three", f"--train.epochs={(int(newest.name[6:]) + 3) / STEPS_PER_EPOCH}", size=3, environment=again)
    assert runs.steps("three") == int(newest.name[6:]) + 3


@pytest.mark.slow
def test_torchrun_starts_again_by_itself(runs: Runs) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "--max-restarts=1"]
    words = runs.words("elastic", f"--train.epochs={400 / STEPS_PER_EPOCH}", "--trainer.timeout=300")
    with subprocess.Popen([*torchrun, "-m", "marginface", *words], stderr=subprocess.PIPE, text=True) as process:
        while runs.steps("elastic") < 20:
            assert process.poll() is None
            time.sleep(0.01)
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        os.kill(int(found.stdout.split()[1]), signal.SIGKILL)
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert re.search("another process of this run (ended|did not answer)", said), said
    assert runs.steps("elastic") == 400


def test_a_second_one_in_the_same_folder_is_refused(runs: Runs) -> None:
    group = runs.start("busy", "--train.epochs=1000")
    runs.wait(group, lambda: runs.steps("busy") >= 1)
    second = processes(1, command, runs.folder / "second.log", ["train", f"--resume={runs.folder / 'busy'}"])
    assert join(second) == [2]
    assert "busy is being trained by another process: wait for it" in runs.log("second")
    assert group[0].is_alive()
    os.kill(group[0].pid or 0, signal.SIGKILL)  # and the lock goes with it
    join(group)
    runs.finish("busy", "--resume=auto", "--train.epochs=0.1")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(runs: Runs) -> None:
    runs.stopped("damaged", "--train.epochs=5")
    newest, before = list_states(runs.folder / "damaged" / "checkpoints")
    for path in (newest, before):
        os.utime(path, (0, 0))  # whatever the clock said meanwhile
    content = bytearray((newest / "part-0.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "part-0.safetensors").write_bytes(content)
    runs.finish("damaged", "--resume=auto", "--train.epochs=5")
    said = runs.log("damaged").replace(" ", "")
    assert f"{newest}/part-0.safetensorsisdamaged:itschecksumdiffers;goingonfromthecheckpointbeforeit" in said
    assert runs.weights("damaged") == runs.weights("whole")


def test_a_disk_that_takes_no_more(runs: Runs) -> None:
    runs.stopped("full", "--train.epochs=5")
    before = list_states(runs.folder / "full" / "checkpoints")
    words = runs.words("full", "--resume=auto", "--train.epochs=5")
    assert join(processes(1, limited, runs.folder / "limited.log", words, 1 << 16)) == [2]
    said = runs.log("limited")
    assert "could not be saved: File too large; earlier checkpoints are intact; make room and resume" in said
    assert list_states(runs.folder / "full" / "checkpoints") == before
    runs.finish("full", "--resume=auto", "--train.epochs=5")
    assert runs.weights("full") == runs.weights("whole")


@pytest.mark.parametrize("allowed", [2, 1])
def test_a_gradient_that_is_not_finite(
    allowed: int, tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward_backward, moved = Trainer._forward_backward, []

    def poisoned(self: Trainer, images: Tensor, labels: Tensor) -> Tensor:
        loss = forward_backward(self, images, labels)
        moved.append(self.head.weight.detach().clone())
        if self.step in (2, 4):
            next(self.embedder.backbone.parameters()).grad[0] = float("inf")  # type: ignore[index]
        return loss

    monkeypatch.setattr(Trainer, "_forward_backward", poisoned)
    words = [*runs.words("inf", "--train.epochs=1"), f"--output={tmp_path}", f"--train.skip_steps={allowed}"]
    if allowed == 2:
        cli.main(words)
    else:
        with pytest.raises(SystemExit, match="2"):
            cli.main(words)
    said = " ".join("".join(capsys.readouterr()).split())
    assert "the gradient is not finite at step 3, left out (1 so far); the batch began with p" in said
    assert "at step 5, left out (2 so far)" in said
    same = [torch.equal(before, after) for before, after in pairwise(moved)]
    assert same[1:5] == [False, True, False, True]  # the first one has no learning rate yet
    if allowed == 1:
        assert "more than train.skip_steps, so the run stopped with its state saved" in said
        assert [path.name for path in list_states(tmp_path / "inf" / "checkpoints")] == ["state-6", "state-3"]


@pytest.mark.parametrize("limit", [0.5, 0.0])
def test_a_record_that_cannot_be_read(
    limit: float, tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    people = tmp_path / "people"
    shutil.copytree(runs.people, people)
    (people / "p03" / "p03_0002.jpg").write_bytes(b"\xff\xd8 not a JPEG")
    monkeypatch.setattr(loader, "UNREADABLE_LIMIT", limit)
    words = [*runs.words("broken", "--train.epochs=1"), f"--output={tmp_path}", f"--data.train={people}"]
    if limit:
        cli.main([*words])
    else:
        with pytest.raises(SystemExit, match="2"):
            cli.main(words)
        assert list_states(tmp_path / "broken" / "checkpoints")
    said = capsys.readouterr().err
    assert said.count("p03_0002.jpg") == 1
    assert ("left out: " in said) == (limit > 0)


def test_another_place_language_and_home(tmp_path: Path) -> None:
    folder = tmp_path / "läuft hier 中文"
    people = write_people(folder / "people", people=6)
    (people / "p00" / "p00_0001.jpg").rename(people / "p00" / os.fsdecode(b"p00_\xff\xfe.jpg"))
    environment = {"PATH": os.environ["PATH"], "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    environment |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    words = ["train", f"--output={folder / 'runs'}", f"--data.train={people}", *WORDS, "--name=ein Lauf 中"]
    command = [sys.executable, "-m", "marginface", *words, "--train.epochs=2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "ein Lauf 中"
    assert (run / "model" / "model.safetensors").is_file()
    assert list_states(Run(run).checkpoints)[0].name == "state-4"
    assert shlex.quote(str(run)) != str(run)


@pytest.mark.slow
def test_memory_and_files_stay_as_they_are(tmp_path: Path) -> None:
    """2,000 steps of two processes, a checkpoint and an evaluation every 50."""
    people = write_people(tmp_path / "people")
    assert join(processes(2, soak, people, tmp_path, 2000), 3600) == [0, 0]
    for rank in (0, 1):
        steps, memory, files = np.load(tmp_path / f"soak-{rank}.npy")[4:].T
        slope = np.polyfit(steps / 100, memory / 2**20, 1)[0]
        print(f"process {rank}: {slope:.3f} MiB each 100 steps, {memory[-1] / 2**20:.0f} MiB, {files[-1]} files")
        assert slope < 1
        assert len(set(files)) == 1
