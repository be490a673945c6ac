"""Signals to a whole process group, as `timeout`, terminals and schedulers send them, in every phase of a step."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from marginface.errors import InputError, Stopped
from marginface.loading.loader import Loader
from marginface.training import start
from marginface.training.config import Config
from marginface.training.loop import Trainer
from marginface.training.monitor import Monitor
from marginface.training.pulse import Pulse
from marginface.training.run import Run
from marginface.training.saving import Saver
from marginface.weights.state import list_states
from people import write_people
from training_ranks import configure, join, processes

PHASES: dict[str, tuple[type, str]] = {
    "before the batch": (Trainer, "_next"),
    "forward": (Trainer, "_forward_backward"),
    "backward": (Pulse, "receive"),
    "update": (Trainer, "_update"),
    "log": (Monitor, "log"),
    "evaluation": (Trainer, "evaluate"),
    "checkpoint": (Saver, "save"),
}
STEPS = 24


def tiny(people: Path, name: str, **changes: Any) -> Config:
    settings = {"data.val": [str(people)], "train.epochs": STEPS / 2, "train.log_every": 1, "train.eval_every": 2}
    config = configure(people, **settings, **{"train.checkpoint_every": 2, "data.workers": 2, **changes})
    return replace(config, name=name, output=str(people.parent / "runs"))


def to_the_group(number: int) -> None:
    os.killpg(os.getpgrp(), number)
    time.sleep(0.05)  # for the workers and the other process to receive it


def disturbed(owner: type, name: str, act: Callable[[], None], at: int, patch: pytest.MonkeyPatch) -> None:
    """Makes a call of owner.name act first, the one of number `at`."""
    original, calls = getattr(owner, name), count(1)

    @wraps(original)
    def method(*arguments: Any, **words: Any) -> Any:
        if next(calls) == at:
            act()
        return original(*arguments, **words)

    patch.setattr(owner, name, method)


def go(config: Config, resume: str = "") -> Run:
    """Trains without what follows the last checkpoint."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(start, "finish", lambda *_: None)
        start.start_training(config, resume=resume, numbered=False, command="test", console=Console(quiet=True))
    return Run(Path(config.output) / config.name)


def newest(run: Run) -> int:
    """The step of the last checkpoint; -1 without one."""
    return next((int(path.name.removeprefix("state-")) for path in list_states(run.checkpoints)), -1)


def weights(run: Run) -> dict[str, str]:
    """The checksums of the last checkpoint's files."""
    described = json.loads((run.state_of(STEPS) / "state.json").read_text())
    return {name: entry["sha256"] for name, entry in described["files"].items()}


def stopped_in_every_phase(rank: int, people: Path, numbers: list[int]) -> None:
    """Of each process: a run per phase, ended there by a signal to the group of all processes and their workers."""
    leader = people.parent / "leader"
    if rank == 0:
        os.setpgid(0, 0)
        leader.write_text(str(os.getpid()))
    while rank and not (leader.is_file() and leader.read_text()):
        time.sleep(0.01)
    if rank:
        os.setpgid(0, int(leader.read_text()))
    for turn, (phase, place) in enumerate(PHASES.items()):
        number = numbers[turn % len(numbers)]
        patch = pytest.MonkeyPatch()
        if rank == turn % 2 or "WORLD_SIZE" not in os.environ:
            disturbed(*place, partial(to_the_group, number), 2, patch)
        config = tiny(people, "stopped")
        run = Run(Path(config.output) / config.name)
        before = newest(run)
        try:
            go(config, resume="auto")
        except (Stopped, SystemExit) as stopped:
            code = stopped.exit_code if isinstance(stopped, Stopped) else stopped.code
            assert code == 128 + number, (phase, code)
        else:
            raise AssertionError(f"not stopped in {phase}")
        finally:
            patch.undo()
        assert newest(run) > before, phase
    go(config, resume="auto")


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_a_signal_to_the_group_saves_the_run(size: int, tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", people=6)
    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
    assert join(processes(size, stopped_in_every_phase, people, numbers), 120) == [0] * size
    if size == 1:
        assert weights(Run(tmp_path / "runs" / "stopped")) == weights(go(tiny(people, "whole")))


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    people = write_people(tmp_path / "people", people=6)
    whole = weights(go(tiny(people, "whole")))
    load, main = Loader._load, os.getpid()

    def dying(self: Loader, *arguments: Any) -> Any:
        if os.getpid() != main and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return load(self, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Loader, "_load", dying)
        replaced = weights(go(tiny(people, "replaced")))
    assert "a process that loads images was ended by SIGKILL; another one takes its place" in capfd.readouterr().err
    assert replaced == whole


@pytest.mark.parametrize("fault", ["every worker dies", "the disk fails", "no memory for the step"])
def test_a_run_that_ends_for_another_reason_is_saved(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = write_people(tmp_path / "people", people=6)
    load, main = Loader._load, os.getpid()

    def failing(self: Loader, out: np.ndarray, epoch: int, indices: np.ndarray) -> Any:
        if epoch == 1 and os.getpid() != main:
            if fault == "every worker dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, "Input/output error", "train.rec")
        return load(self, out, epoch, indices)

    def full() -> None:
        raise torch.OutOfMemoryError("out of memory")

    expected: tuple[type[Exception], str] = (torch.OutOfMemoryError, "out of memory")
    if fault == "no memory for the step":
        disturbed(Trainer, "_forward_backward", full, 3, monkeypatch)
    else:
        monkeypatch.setattr(Loader, "_load", failing)
        expected = OSError, "Input/output error"
    if fault == "every worker dies":
        expected = InputError, f"ended by SIGKILL, .*begins with p.*go on with: marginface train --resume {tmp_path}"
    with pytest.raises(expected[0], match=expected[1]):
        go(tiny(people, "failed", **{"train.checkpoint_every": 0}))
    assert newest(Run(tmp_path / "runs" / "failed")) == 2


def gone() -> None:
    raise InputError("the images are gone")


def without_images(rank: int, people: Path) -> None:
    if rank == 1:
        disturbed(Loader, "_count", gone, 4, pytest.MonkeyPatch())
    kind, words = (InputError, "the images are gone; go on with") if rank == 1 else (SystemExit, "2")
    with pytest.raises(kind, match=words):
        go(tiny(people, "failed", **{"train.checkpoint_every": 0}))
    assert newest(Run(people.parent / "runs" / "failed")) == 3


@pytest.mark.slow
def test_two_processes_save_where_one_has_no_images(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", people=6)
    assert join(processes(2, without_images, people), 120) == [0, 0]
