"""Several processes of one run agree: all go on, or all stop for the same reason. For training and evaluation."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch.distributed as dist

from marginface.errors import InputError, PeerLost

T = TypeVar("T")

# what gloo, NCCL and their store say when another process is gone; torch gives most of them no type of their own
GONE = re.compile(r"connection (was )?(closed|reset|refused)|timed? ?out|broken pipe|by peer|gloo|nccl", re.IGNORECASE)


def rank_and_size(group: dist.ProcessGroup | None = None) -> tuple[int, int]:
    """(0, 1) without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def together(work: Callable[[], T], group: dist.ProcessGroup | None = None) -> list[T]:
    """Every process does its `work`; all get the results of all, or all raise the error of the first that failed.

    Only OSError and InputError are shared: anything else is a fault of the program. All processes must call this.
    """
    rank, size = rank_and_size(group)
    if size == 1:
        return [work()]
    mine: tuple[T | None, OSError | InputError | None]
    try:
        mine = work(), None
    except (OSError, InputError) as error:
        mine = None, error
    found: list[tuple[T | None, OSError | InputError | None]] = [mine] * size
    dist.all_gather_object(found, mine, group=group)
    for number, (_, failure) in enumerate(found):
        if failure is not None:
            refusal = failure if isinstance(failure, InputError) else InputError(str(failure))
            refusal.elsewhere = number != rank
            raise refusal
    return [cast(T, result) for result, _ in found]


def by_first(work: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """The first process works; all get its result or its error."""
    first = rank_and_size(group)[0] == 0
    return cast(T, together(lambda: work() if first else None, group)[0])


def alike(error: InputError) -> InputError:
    """For an error that every process raises: the first one says it."""
    error.elsewhere = rank_and_size()[0] > 0
    return error


@contextmanager
def peers_watched(timeout: float) -> Iterator[None]:
    """Within, what torch says of a process that died or hangs becomes one sentence: PeerLost."""
    try:
        yield
    except RuntimeError as error:
        if rank_and_size()[1] == 1 or not GONE.search(str(error)):
            raise
        reason = str(error).splitlines()[0]
        raise PeerLost(f"another process of this run ended, or did not answer for {timeout:g} s ({reason})") from error
