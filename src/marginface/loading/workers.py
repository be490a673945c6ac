"""Batches made ahead by processes, in memory they share with the training step. Called by `loader`.

Not by threads where processes can be forked: between two images a thread needs Python's lock for a moment, and two
of them lose a sixth of their time waiting for each other.
"""

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
from typing import Any, Protocol

import numpy as np

FORK = sys.platform == "linux"  # elsewhere it is missing, or not safe beside the libraries of the system
UNUSED = 2  # references to an array that is only in a list and an argument
Make = Callable[..., tuple[int, Any]]
"""(memory for the images of a batch, *task) -> (how many there are, what else is to be known; it is pickled)."""


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
        """(images, the rest) of the earliest task. Raises what `make` raised."""
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
    def __init__(self, count: int, make: Make, slots: list[np.ndarray], shape: tuple[int, ...]) -> None:
        context = multiprocessing.get_context("fork")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            self._pipes.append(ours)
            arguments = (theirs, list(self._pipes), make, slots, shape)
            process = context.Process(target=_serve, args=arguments, daemon=True, name="loader")
            with warnings.catch_warnings():  # of threads that hold locks: none that decoding takes
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            self._processes.append(process)

    def give(self, worker: int, slot: int, task: tuple[Any, ...]) -> None:
        self._pipes[worker].send((slot, task))

    def take(self, worker: int) -> tuple[int, Any]:
        try:
            answer: Any = self._pipes[worker].recv()
        except (EOFError, ConnectionError) as error:
            self._processes[worker].join(5)
            code = self._processes[worker].exitcode
            raise RuntimeError(f"a process that loads images ended with code {code}; is the memory full?") from error
        if isinstance(answer, BaseException):
            raise answer
        count, rest = answer
        return int(count), rest

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()


def _serve(
    pipe: Connection, of_parent: list[Connection], make: Make, slots: list[np.ndarray], shape: tuple[int, ...]
) -> None:
    """What a worker does until its parent closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and is for the parent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
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
