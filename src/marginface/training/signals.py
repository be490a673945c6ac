"""Ctrl-C, SIGTERM and SIGHUP: let the step finish, so that a checkpoint can be written, and say how to go on."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]
ECHO = 5.0  # seconds: launchers pass on to every process what the terminal or the scheduler has told it already


class StopFlag:
    """`number` is the signal that asked to stop, 0 while none did; `since` when."""

    number, since = 0, 0.0


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Within, the first of STOP_SIGNALS only sets the flag; one that comes ECHO or more later acts as usual.

    A SIGHUP that is ignored, as by nohup, stays ignored.
    """
    flag = StopFlag()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = {n: handler for n, handler in before.items() if n == signal.SIGINT or handler is not signal.SIG_IGN}

    def note(number: int, frame: FrameType | None) -> None:
        if not flag.number:
            flag.number, flag.since = number, time.monotonic()
        elif time.monotonic() - flag.since > ECHO:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
