"""Batches made ahead by processes, in memory they share with the training step. Called by `loader`.

Not by threads where processes can be forked: between two images a thread needs Python's lock for a moment, and two
of them lose a sixth of their time waiting for each other.
"""

import contextlib
import gc
import math
import mmap
import multiprocessing
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from multiprocessing.util import Finalize
from typing import Any, Protocol

import numpy as np

FORK = sys.platform == "linux"  # elsewhere it is missing, or not safe beside the libraries of the system
UNUSED = 2  # references to an array that is only in a list and an argument
ATTEMPTS = 3  # at a batch whose process dies
Make = Callable[..., tuple[int, Any]]
"""(memory for the images of a batch, *task) -> (how many there are, what else is to be known; it is pickled)."""


class WorkerLost(Exception):
    """A process died as often as ATTEMPTS at one `task`; the message says of what."""

    def __init__(self, message: str, task: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.task = task


class Workers:
    """`count` processes, or threads, that do tasks and give the results in the order in which they were asked for."""

    def __init__(self, count: int, make: Make, shape: tuple[int, ...]) -> None:
        """shape: of the images of the largest batch, uint8."""
        # one for each task that is under way, and two that the caller may still look at
        self._shape, self._slots = shape, [shared_array(math.prod(shape)) for _ in range(count + 3)]
        self._ahead: deque[tuple[int, np.ndarray]] = deque()
        self._given, self._count = 0, count
        self._hands: _Hands = (_Processes if FORK else _Threads)(count, make, self._slots, shape)

    def fill(self, tasks: Iterator[tuple[Any, ...]]) -> None:
        """Asks for tasks until every worker has one and one more is waiting."""
        while len(self._ahead) <= self._count:
            slot = self._unused()
            assert slot is not None
            self._hands.give(self._given % self._count, slot, next(tasks))
            self._ahead.append((self._given % self._count, self._slots[slot]))
            self._given += 1

    def result(self) -> tuple[np.ndarray, Any]:
        """(images, the rest) of the earliest task. Raises what `make` raised, and WorkerLost."""
        worker, slot = self._ahead.popleft()
        count, rest = self._hands.take(worker)
        images = slot.reshape(self._shape)[:count]
        # whoever keeps many batches gets copies, so that there is memory for the next one
        return (images if self._unused() is not None else images.copy()), rest

    def close(self) -> None:
        self._hands.close()

    def _unused(self) -> int | None:
        """The number of an array that nobody else refers to, as the views of numpy and torch do."""
        return next((n for n in range(len(self._slots)) if sys.getrefcount(self._slots[n]) == UNUSED), None)


def shared_array(size: int, dtype: type = np.uint8) -> np.ndarray:
    """Zeros (size,) that processes forked later share. Views of it refer to it itself, not to each other."""
    return np.frombuffer(mmap.mmap(-1, size * np.dtype(dtype).itemsize), dtype)


class _Hands(Protocol):
    def give(self, worker: int, slot: int, task: tuple[Any, ...]) -> None: ...
    def take(self, worker: int) -> tuple[int, Any]: ...
    def close(self) -> None: ...


class _Threads:
    def __init__(self, count: int, make: Make, slots: list[np.ndarray], shape: tuple[int, ...]) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="loader")
        self._make, self._slots, self._shape = make, slots, shape
        self._ahead: deque[Future[tuple[int, Any]]] = deque()

    def give(self, worker: int, slot: int, task: tuple[Any, ...]) -> None:
        self._ahead.append(self._pool.submit(self._make, self._slots[slot].reshape(self._shape), *task))

    def take(self, worker: int) -> tuple[int, Any]:
        return self._ahead.popleft().result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Processes:
    """Forked processes. One that dies is replaced, and does again what it was asked for."""

    def __init__(self, count: int, make: Make, slots: list[np.ndarray], shape: tuple[int, ...]) -> None:
        self._work = make, slots, shape
        self._asked: list[deque[tuple[int, tuple[Any, ...]]]] = [deque() for _ in range(count)]
        self._pipes: list[Connection] = []
        self._processes: list[ForkProcess] = []
        for worker in range(count):
            self._start(worker)
        # at exit, multiprocessing sends SIGTERM, which workers ignore, and waits
        self._end = Finalize(self, _end, (self._pipes, self._processes), exitpriority=0)

    def _start(self, worker: int) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        self._pipes[worker : worker + 1] = [ours]
        process = context.Process(target=_serve, args=(theirs, self._pipes, *self._work), daemon=True, name="loader")
        with warnings.catch_warnings():  # of threads that hold locks: none that decoding takes
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        self._processes[worker : worker + 1] = [process]

    def give(self, worker: int, slot: int, task: tuple[Any, ...]) -> None:
        self._asked[worker].append((slot, task))
        self._send(worker, (slot, task))

    def take(self, worker: int) -> tuple[int, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer: Any = self._pipes[worker].recv()
                break
            except (EOFError, OSError):  # the latter in the middle of an answer
                self._replace(worker, attempt)
        self._asked[worker].popleft()
        if isinstance(answer, BaseException):
            raise answer
        count, rest = answer
        return int(count), rest

    def close(self) -> None:
        self._end()

    def _send(self, worker: int, request: tuple[int, tuple[Any, ...]]) -> None:
        with contextlib.suppress(ConnectionError):  # it is dead, which `take` notices
            self._pipes[worker].send(request)

    def _replace(self, worker: int, attempt: int) -> None:
        """A new process in place of a dead one. Raises WorkerLost where it was the last attempt."""
        self._pipes[worker].close()
        process = self._processes[worker]
        process.kill()  # in case only its pipe is gone
        process.join()
        code = process.exitcode or 0
        reason = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        if attempt == ATTEMPTS:
            raise WorkerLost(
                f"a process that loads images {reason}, and so did its successors", self._asked[worker][0][1]
            )
        print(f"marginface: a process that loads images {reason}; another one takes its place", file=sys.stderr)
        self._start(worker)
        for request in self._asked[worker]:
            self._send(worker, request)


def _end(pipes: list[Connection], processes: list[ForkProcess]) -> None:
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _serve(
    pipe: Connection, of_parent: list[Connection], make: Make, slots: list[np.ndarray], shape: tuple[int, ...]
) -> None:
    """What a worker does until its parent closes the pipe, or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # to the whole group; the parent ends its workers
        signal.signal(number, signal.SIG_IGN)
    for other in of_parent:
        other.close()  # else no worker would notice the end of the parent
    gc.freeze()  # what came from the parent stays shared with it
    while True:
        try:
            slot, task = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer: Any = make(slots[slot].reshape(shape), *task)
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)))
            answer = error
        try:
            pipe.send(answer)
        except ConnectionError:
            return
