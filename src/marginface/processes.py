"""Several processes of one run agree: all go on, or all stop for the same reason. For training and evaluation."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from marginface.errors import InputError, PeerLost, Stopped

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

    Only OSError, InputError and Stopped are shared: anything else is a fault of the program. All processes must call
    this. torch pickles the results, so they come from processes of this run only, and never from a file.
    """
    rank, size = rank_and_size(group)
    if size == 1:
        return [work()]
    mine: tuple[T | None, OSError | InputError | Stopped | None]
    try:
        mine = work(), None
    except (OSError, InputError, Stopped) as error:
        mine = None, error
    found: list[tuple[T | None, OSError | InputError | Stopped | None]] = [mine] * size
    dist.all_gather_object(found, mine, group=group)
    for number, (_, failure) in enumerate(found):
        if isinstance(failure, Stopped):
            raise failure
        if failure is not None:
            refusal = failure if isinstance(failure, InputError) else InputError(str(failure))
            refusal.elsewhere = number != rank
            raise refusal
    return [cast(T, result) for result, _ in found]


def by_first(work: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """The first process works; all get its result or its error."""
    first = rank_and_size(group)[0] == 0
    return cast(T, together(lambda: work() if first else None, group)[0])


def each(work: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """Every process does its `work` and keeps what it found; where one of them failed, all raise that error."""
    kept: list[T] = []
    together(lambda: kept.append(work()), group)
    return kept[0]


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
        late = re.search("timed? ?out", str(error), re.IGNORECASE)
        what = f"did not answer for {timeout:g} s" if late else "ended"
        raise PeerLost(f"another process of this run {what}; what it printed says why") from error


def meet(backend: str, timeout: float) -> None:
    """Makes one group of the processes that torchrun started. timeout: seconds.

    torchrun keeps one store for all its attempts, and in it the addresses of the dead, which their successors would
    wait for: what one attempt writes must not be read by another.
    """
    wait = timedelta(seconds=timeout)
    store, rank, size = next(rendezvous("env://", timeout=wait))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True):
        store = PrefixStore(f"attempt-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait)


@contextmanager
def one_speaks(silent: int | None = None) -> Iterator[None]:
    """Within, what ends all processes is said by one; the others end with the same exit code, or with `silent`."""
    try:
        yield
    except PeerLost:  # whoever could say it may be gone
        raise
    except InputError as error:
        if error.elsewhere:
            raise SystemExit(2 if silent is None else silent) from error
        raise
    except Stopped as stopped:
        if rank_and_size()[0] > 0:
            raise SystemExit(stopped.exit_code if silent is None else silent) from None
        raise


@contextmanager
def of_torchrun(timeout: float = 1800.0) -> Iterator[None]:
    """Within, the processes of torchrun, if it started any, are one group, each with a GPU of its own if there are."""
    if not dist.is_torchelastic_launched():
        yield
        return
    meet("gloo", timeout)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    with one_speaks(), peers_watched(timeout):
        yield
