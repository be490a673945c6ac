"""A bar for long work that Ctrl-C and SIGTERM end between two batches, saying how to go on. For the verbs on data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from marginface.errors import Stopped
from marginface.processes import rank_and_size
from marginface.training.signals import stop_flag


@contextmanager
def progress_bar(text: str, advice: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what the work calls with (done, total); that call raises Stopped, saying `advice`, after a signal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True, quiet=rank_and_size()[0] > 0)  # of several processes one speaks
    with Progress(*columns, console=console) as bar, stop_flag() as flag:

        def report(done: int, total: int) -> None:
            task = bar.task_ids[0] if bar.task_ids else bar.add_task(text)  # what fails before shows no bar
            bar.update(task, completed=done, total=total)
            if flag.number:
                raise Stopped(flag.number, f"stopped at {done:,} of {total:,}; {advice}")

        yield report
