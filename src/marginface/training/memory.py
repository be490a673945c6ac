"""Freed memory stays with the process, on a CPU. Called by `start`."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc not to give freed memory back to the system, for the rest of the process.

    Every step asks for the same gigabytes again, and the system hands them out page by page, each zeroed: a tenth to
    a quarter of a step's time (benchmarks/train_step.md). False, and nothing changes, where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS and musl have none; Windows cannot be asked this way
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
