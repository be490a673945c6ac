"""Ctrl-C and SIGTERM: let the step finish, so that a checkpoint can be written, and say how to go on."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ECHO = 5.0  # seconds: launchers pass on to every process what the terminal or the scheduler has told it already


class StopFlag:
    """`number` is the signal that asked to stop, 0 while none did; `since` when."""

    number, since = 0, 0.0


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Within, the first SIGINT or SIGTERM only sets the flag; one that comes ECHO or more later acts as usual."""
    flag = StopFlag()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        if not flag.number:
            flag.number, flag.since = number, time.monotonic()
        elif time.monotonic() - flag.since > ECHO:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
