"""Work done beside the training step: in order, in memory that is used again, honest about what goes wrong."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface.errors import InputError
from marginface.loading import workers
from marginface.loading.workers import WorkerLost, Workers


@pytest.fixture(params=[True, False], ids=["processes", "threads"])
def forked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not workers.FORK:
        pytest.skip("operating system: no fork")
    monkeypatch.setattr(workers, "FORK", request.param)
    return bool(request.param)


def number(out: np.ndarray, task: int) -> tuple[int, int]:
    time.sleep(0.002 * (task % 3))
    out[:] = task
    return len(out) - task % 2, os.getpid()


def tasks() -> Iterator[tuple[int]]:
    return zip(count())


@pytest.mark.parametrize("kept", [1, 2, 100])
def test_results_come_in_order_and_stay_as_they_are_while_somebody_keeps_them(forked: bool, kept: int) -> None:
    with closing(Workers(3, number, (4, 2, 2, 3))) as three:
        work, held, pids = tasks(), [], set()
        for task in range(40):
            three.fill(work)
            images, pid = three.result()
            pids.add(pid)
            held = [*held, (task, images)][-kept:]
            for earlier, pictures in held:
                assert pictures.shape == (4 - earlier % 2, 2, 2, 3)
                assert (pictures == earlier).all()
    assert len(pids) == (3 if forked else 1)
    assert (os.getpid() in pids) != forked


def failing(out: np.ndarray, task: int) -> tuple[int, None]:
    if task == 2:
        raise InputError("the third task is wrong")
    return 1, None


def test_errors_reach_the_caller(forked: bool) -> None:
    with closing(Workers(2, failing, (1, 1, 1, 3))) as two:
        work = tasks()
        for _ in range(2):
            two.fill(work)
            two.result()
        two.fill(work)
        with pytest.raises(InputError, match="the third task is wrong"):
            two.result()


def dying(out: np.ndarray, task: int) -> tuple[int, int]:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    out[:] = task
    return 1, task


@pytest.mark.skipif(not workers.FORK, reason="operating system: no fork")
def test_a_task_that_kills_every_process_is_named() -> None:
    with closing(Workers(2, dying, (1, 1, 1, 3))) as two:
        work = tasks()
        for task in range(3):
            two.fill(work)
            assert two.result()[1] == task
        two.fill(work)
        with pytest.raises(WorkerLost, match="was ended by SIGKILL, and so did its successors") as lost:
            two.result()
        assert lost.value.task == (3,)


def slow(out: np.ndarray, task: int) -> tuple[int, int]:
    time.sleep(0.02)
    out[:] = task
    return 1, os.getpid()


@pytest.mark.skipif(not workers.FORK, reason="operating system: no fork")
@pytest.mark.parametrize("pause", [0.0, 0.01, 0.05])
def test_a_process_that_is_killed_is_replaced(pause: float, capfd: pytest.CaptureFixture[str]) -> None:
    """Whether it is idle, at work or about to answer."""
    with closing(Workers(2, slow, (1, 1, 1, 3))) as two:
        work, pid = tasks(), 0
        for task in range(12):
            two.fill(work)
            if task in (2, 3, 7):
                time.sleep(pause)
                os.kill(pid, signal.SIGKILL)
            images, pid = two.result()
            assert (images == task).all()
    assert capfd.readouterr().err.count("was ended by SIGKILL; another one takes its place") == 3


@pytest.mark.skipif(not workers.FORK, reason="operating system: no fork")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_to_the_group_are_for_the_parent(number: signal.Signals) -> None:
    with closing(Workers(2, slow, (1, 1, 1, 3))) as two:
        work, pids = tasks(), []
        for _ in range(6):
            two.fill(work)
            pids.append(two.result()[1])
            os.kill(pids[-1], number)
        assert pids == [*pids[:2]] * 3


def abandon() -> None:
    two = Workers(2, slow, (1, 1, 1, 3))
    two.fill(tasks())
    two.result()


@pytest.mark.skipif(not workers.FORK, reason="operating system: no fork")
def test_a_parent_that_ends_without_closing_does_not_wait() -> None:
    parent = multiprocessing.get_context("fork").Process(target=abandon)
    parent.start()
    parent.join(20)
    parent.kill()
    assert parent.exitcode == 0


PARENT = """
import sys, time, itertools, numpy as np
from marginface.loading.workers import Workers
def make(out, task):
    import os
    return 1, os.getpid()
two = [Workers(2, make, (1, 1, 1, 3)) for _ in range(2)]
pids = []
for one in two:
    work = zip(itertools.count())
    for _ in range(4):
        one.fill(work)
        pids.append(one.result()[1])
print(*sorted(set(pids)), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not workers.FORK, reason="operating system: no fork")
def test_no_process_outlives_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = parent.stdout.readline().split()
        for pid in pids:
            os.kill(int(pid), signal.SIGINT)  # which Ctrl-C sends to all of them
        time.sleep(0.1)
        assert len(pids) == 4
        assert all(running(pid) for pid in pids)
        parent.kill()
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(running(pid) for pid in pids)


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def shrink(out: np.ndarray, task: int) -> tuple[int, None]:
    out[0] = cv2.resize(np.full((3000, 3000, 3), task, np.uint8), (8, 8), interpolation=cv2.INTER_AREA)
    return 1, None


def test_opencv_works_after_it_used_its_threads_in_the_parent(forked: bool) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.resize(np.zeros((3000, 3000, 3), np.uint8), (8, 8), interpolation=cv2.INTER_AREA)
        with closing(Workers(2, shrink, (1, 8, 8, 3))) as two:
            work = tasks()
            for task in range(4):
                two.fill(work)
                assert (two.result()[0] == task).all()
    finally:
        cv2.setNumThreads(before)
