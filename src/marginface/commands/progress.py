"""A bar for long work that Ctrl-C and SIGTERM end between two batches, saying how to go on. For the verbs on data."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

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
from marginface.terminal import open_console, progress_lines
from marginface.training.signals import stop_flag

Report = Callable[[int, int], None]
"""Told how many of how many are done."""


@contextmanager
def progress_bars(advice: str) -> Iterator[Callable[[str], Report]]:
    """Yields what begins a bar of its own: text -> what the work calls with (done, total).

    That call raises Stopped, saying `advice`, after a signal. Outside of a terminal there are lines instead of bars.
    """
    console = open_console(stderr=True, quiet=rank_and_size()[0] > 0)  # of several processes one speaks
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with ExitStack() as held:
        bar = Progress(*columns, TimeRemainingColumn(), console=console)
        if console.is_terminal:
            held.enter_context(bar)
        flag = held.enter_context(stop_flag())

        def begin(text: str) -> Report:
            show = _bar(bar, text) if console.is_terminal else progress_lines(text, console)

            def report(done: int, total: int) -> None:
                show(done, total)
                if flag.number:
                    raise Stopped(flag.number, f"stopped at {done:,} of {total:,}; {advice}")

            return report

        yield begin


def _bar(progress: Progress, text: str) -> Report:
    tasks: list[TaskID] = []

    def show(done: int, total: int) -> None:
        tasks[:] = tasks or [progress.add_task(text)]  # what fails before shows no bar
        progress.update(tasks[0], completed=done, total=total)

    return show


@contextmanager
def progress_bar(text: str, advice: str) -> Iterator[Report]:
    """The same for work of one kind."""
    with progress_bars(advice) as begin:
        yield begin(text)
