"""Runs what reads a hostile file in a process of its own, with a limit on memory and time."""

import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from marginface.errors import InputError

WAIT = 12  # seconds that a second on the processor may take, where other processes want it too
MEMORY = 1 << 30  # bytes that the file may take beyond what the imports take
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["bounded_imports"])


def _start_server() -> None:
    """The first process, of which all others begin as copies; it finds modules where this one does."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def refusal(call: Callable[..., Any], *arguments: Any, memory: int = MEMORY, seconds: float = 10) -> str:
    """The sentence of the InputError that `call(*arguments)` raises. Fails for any other end, and where that
    takes more bytes of `memory` or `seconds` on the processor.

    call: importable by name, since it runs in another process.
    """
    kind, answer = outcome(call, *arguments, memory=memory, seconds=seconds)
    assert kind == "refused", f"{kind}: {answer}"
    assert "\n" not in answer
    assert len(answer) < 1000
    return answer


def outcome(call: Callable[..., Any], *arguments: Any, memory: int = MEMORY, seconds: float = 10) -> tuple[str, Any]:
    """("returned", what `call` returned), ("refused", sentence) or ("raised", traceback). Fails as `refusal`."""
    _start_server()
    here, there = _server.Pipe(duplex=False)
    process = _server.Process(target=_run, args=(there, call, arguments, memory, seconds))
    process.start()
    there.close()
    try:
        here.recv()  # the first process waits for the imports
        assert here.poll(WAIT * seconds), f"no end within {WAIT * seconds} s"
        found = here.recv()
    except EOFError:
        process.join(5)
        raise AssertionError(f"the process ended with {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    kind, answer, peak, spent = found
    assert peak < memory, f"took {peak >> 20:,} MB"
    assert spent < seconds, f"took {spent:.1f} s"
    return kind, answer


def _run(answer: Connection, call: Callable[..., Any], arguments: tuple[Any, ...], memory: int, seconds: float) -> None:
    answer.send("ready")
    before = _peak()
    resource.setrlimit(resource.RLIMIT_DATA, (_data() + 2 * memory,) * 2)  # malloc fails before the machine does
    started = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(started + 2 * seconds),) * 2)
    try:
        found = ("returned", call(*arguments))
    except InputError as refused:
        found = ("refused", str(refused))
    except BaseException:
        found = ("raised", traceback.format_exc())
    answer.send((*found, _peak() - before, time.process_time() - started))


def _peak() -> int:
    """Bytes in memory, the most so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _data() -> int:
    """Bytes that the process has asked for, which are more than it uses."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmData:")).split()[1])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses every byte beyond: what a full disk and a quota are to a program."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
