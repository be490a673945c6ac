"""A state is written while the training goes on, and everything that holds of those that are waited for still holds."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console

from marginface.errors import InputError
from marginface.training import saving
from marginface.training.checkpoint import open_newest
from marginface.training.loop import Trainer
from marginface.training.run import Run
from marginface.training.saving import Saver
from marginface.weights.parts import Part
from marginface.weights.state import SavedState, list_states, write_state
from people import write_people
from training_ranks import command, configure, join, processes, steps


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What a slow disk is: nothing is written before it opens."""
    gate = threading.Event()

    def write(*given: Any) -> None:
        assert gate.wait(30)
        write_state(*given)

    monkeypatch.setattr(saving, "write_state", write)
    return gate


def test_what_is_written_is_what_was_given(tmp_path: Path, gate: threading.Event) -> None:
    saver, whole, rows = Saver(2, True, 60.0), torch.zeros(4, 3).to(torch.bfloat16), torch.ones(2, 3)
    saver.save(tmp_path / "state-1", {"whole": whole, "rows": Part(rows, 0, 2)}, {"step": 1})
    for value in (whole, rows):  # as the next step does
        value.fill_(7)
    assert not list_states(tmp_path)
    gate.set()
    saver.wait()
    whole_read, rows_read = torch.full((4, 3), 9.0).to(torch.bfloat16), torch.zeros(1, 3)
    SavedState.open(tmp_path / "state-1").read({"whole": whole_read, "rows": Part(rows_read, 1, 2)})
    assert (whole_read == 0).all()
    assert (rows_read == 1).all()


def test_one_at_a_time_in_the_same_room(tmp_path: Path, gate: threading.Event) -> None:
    saver, value, rooms = Saver(2, True, 60.0), torch.zeros(3), set()
    threading.Timer(0.2, gate.set).start()
    for step in (1, 2, 3):
        value.fill_(step)
        saver.save(tmp_path / f"state-{step}", {"value": value}, {"step": step})
        assert step == 1 or tmp_path / f"state-{step - 1}" in list_states(tmp_path)
        rooms.add(saver._room["value"].data_ptr())
    saver.wait()
    assert len(rooms) == 1
    assert [path.name for path in list_states(tmp_path)] == ["state-3", "state-2"]
    SavedState.open(tmp_path / "state-2").read({"value": value})
    assert (value == 2).all()


@pytest.mark.parametrize("reason", [None, InputError, RuntimeError])
def test_its_end_waits_for_the_write(reason: type[Exception] | None, tmp_path: Path, gate: threading.Event) -> None:
    threading.Timer(0.2, gate.set).start()
    try:
        with Saver(2, True, 60.0) as saver:
            saver.save(tmp_path / "state-1", {"value": torch.zeros(3)}, {"step": 1})
            if reason:
                raise reason("why")
    except (InputError, RuntimeError):
        pass
    assert list_states(tmp_path)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "people", people=8, images=3)


def trainer(people: Path, **changes: Any) -> Trainer:
    changes = {
        "train.async_checkpoints": True,
        "optim.ema": 0.9,
        "margin.name": "adaface",
        "margin.options": {},
    } | changes
    return Trainer(configure(people, **changes), Fabric(accelerator="cpu", devices=1), Console(quiet=True))


def weights(trainer: Trainer) -> dict[str, Any]:
    return {name: value.rows if isinstance(value, Part) else value for name, value in trainer.learner.tensors().items()}


def test_going_on_is_exact(tmp_path: Path, people: Path, gate: threading.Event) -> None:
    undisturbed, run = trainer(people), Run(tmp_path)
    steps(undisturbed, 3)
    undisturbed.checkpoint(run, wait=False)
    steps(undisturbed, 3)
    gate.set()
    undisturbed.saver.wait()
    resumed = trainer(people)
    saved = open_newest(run, print)
    assert saved
    resumed.resume(*saved)
    assert resumed.step == 3
    steps(resumed, 3)
    expected = weights(undisturbed)
    assert len(expected) > 20
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())


def test_a_full_disk_stops_the_run_at_the_next_step(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr(saving, "write_state", refuse)
    subject = trainer(people, **{"train.checkpoint_every": 2})
    original = subject.saver.save

    def save(*given: Any) -> None:
        original(*given)
        assert subject.saver._thread is not None
        subject.saver._thread.join()

    monkeypatch.setattr(subject.saver, "save", save)
    with pytest.raises(InputError, match="the disk is full"):
        subject.fit(Run(tmp_path))
    assert subject.step == 3


WORDS = [
    "--model.backbone=small", "--model.num_features=16", "--model.options.width=4", "--data.val=[]",
    "--data.batch_size=12", "--data.cache=true", "--optim.ema=0.9", "--margin.name=adaface", "--margin.options={}",
    "--train.checkpoint_every=3", "--train.log_every=1", "--trainer.accelerator=cpu", "--trainer.timeout=30",
    "--train.epochs=20", "--resume=auto",
]  # fmt: skip


def start(folder: Path, people: Path, name: str, asynchronous: bool) -> list[Any]:
    words = ["train", f"--output={folder}", f"--data.train={people}", f"--name={name}", *WORDS]
    words.append(f"--train.async_checkpoints={str(asynchronous).lower()}")
    return processes(2, command, folder / f"{name}.log", words)


@pytest.mark.slow
def test_two_processes_killed_while_they_write(tmp_path: Path, people: Path) -> None:
    assert join(start(tmp_path, people, "whole", False)) == [0, 0]
    checkpoints, killed, seen = tmp_path / "killed" / "checkpoints", 0, ""
    while killed < 2:
        group, end = start(tmp_path, people, "killed", True), time.monotonic() + 100
        while (under_way := next((path.name for path in checkpoints.glob(".state-*.tmp")), "")) in ("", seen):
            assert time.monotonic() < end
            assert all(process.is_alive() for process in group), "it ended before it could be disturbed"
        for process in group:
            os.kill(process.pid, signal.SIGKILL)
        assert join(group) == [-signal.SIGKILL] * 2
        seen, killed = under_way, killed + 1
        for state in list_states(checkpoints):
            SavedState.open(state)
    assert join(start(tmp_path, people, "killed", True)) == [0, 0], (tmp_path / "killed.log.0").read_text()
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_two_processes_asked_to_stop(tmp_path: Path, people: Path) -> None:
    group, metrics = start(tmp_path, people, "stopped", True), tmp_path / "stopped" / "metrics.csv"
    end = time.monotonic() + 100
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < 9:
        assert time.monotonic() < end
        assert all(process.is_alive() for process in group)
    os.kill(group[1].pid, signal.SIGTERM)
    assert join(group) == [128 + signal.SIGTERM] * 2
    (newest, *_) = list_states(tmp_path / "stopped" / "checkpoints")
    assert SavedState.open(newest).facts["step"] >= 8
    assert not list(newest.parent.glob(".state-*"))
