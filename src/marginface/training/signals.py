"""Ctrl-C and SIGTERM: let the step finish, so that a checkpoint can be written, and say how to go on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """`number` is the signal that asked to stop, 0 while none did."""

    number = 0


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Within, the first SIGINT or SIGTERM only sets the flag; a second one acts as usual."""
    flag = StopFlag()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        flag.number = number
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
