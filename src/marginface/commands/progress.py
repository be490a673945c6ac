"""A bar for long work that Ctrl-C and SIGTERM end between two batches, saying how to go on. For the verbs on data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from marginface.errors import Stopped
from marginface.processes import rank_and_size
from marginface.training.signals import stop_flag

Report = Callable[[int, int], None]
"""Told how many of how many are done."""


@contextmanager
def progress_bars(advice: str) -> Iterator[Callable[[str], Report]]:
    """Yields what begins a bar of its own: text -> what the work calls with (done, total).

    That call raises Stopped, saying `advice`, after a signal.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True, quiet=rank_and_size()[0] > 0)  # of several processes one speaks
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar, stop_flag() as flag:

        def begin(text: str) -> Report:
            tasks: list[TaskID] = []

            def report(done: int, total: int) -> None:
                tasks[:] = tasks or [bar.add_task(text)]  # what fails before shows no bar
                bar.update(tasks[0], completed=done, total=total)
                if flag.number:
                    raise Stopped(flag.number, f"stopped at {done:,} of {total:,}; {advice}")

            return report

        yield begin


@contextmanager
def progress_bar(text: str, advice: str) -> Iterator[Report]:
    """The same for work of one kind."""
    with progress_bars(advice) as begin:
        yield begin(text)
