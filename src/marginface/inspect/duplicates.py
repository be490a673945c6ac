"""Which images are the same, by bytes or by looks. Called by `inspect`; numpy only."""

from collections.abc import Iterator

import numpy as np

BAND_BITS = 16  # near duplicates agree in at least one such piece of the hash
LONGEST_RUN = 500  # images that agree in a piece; more of them are compared to their neighbours only


def same_bytes(exact: np.ndarray, readable: np.ndarray) -> list[np.ndarray]:
    """Groups of two or more rows with equal hashes. exact: uint64 (N,); readable: bool (N,)."""
    rows = np.flatnonzero(readable)
    rows = rows[np.argsort(exact[rows], kind="stable")]
    ends = np.flatnonzero(exact[rows][1:] != exact[rows][:-1]) + 1
    return [group for group in np.split(rows, ends) if len(group) > 1]


def alike(looks: np.ndarray, readable: np.ndarray, distance: int) -> np.ndarray:
    """Pairs of rows, int64 (P, 2), whose hashes differ in at most `distance` bits, each once, ascending.

    looks: uint64 (N, W). All are found whose difference leaves one piece of BAND_BITS untouched, so surely those
    with fewer bits than pieces; others most likely.
    """
    rows = np.flatnonzero(readable)
    found = [np.empty((0, 2), dtype=np.int64)]
    for piece in looks[rows].view(f"<u{BAND_BITS // 8}").T:
        order = np.argsort(piece, kind="stable")
        for pairs in _pairs_in_runs(piece[order]):
            a, b = rows[order[pairs[:, 0]]], rows[order[pairs[:, 1]]]
            close = hamming(looks[a], looks[b]) <= distance
            found.append(np.sort(np.stack([a[close], b[close]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In how many bits the rows of uint64 (P, W) differ, int64 (P,)."""
    count: np.ndarray = COUNT_OF_BITS[(a ^ b).view(np.uint8)].sum(axis=1, dtype=np.int64)
    return count


COUNT_OF_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)


def _pairs_in_runs(values: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of places, int64 (P, 2), that hold equal values; `values` are sorted."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if len(values) else np.empty(0, int)
    lengths = np.diff(starts, append=len(values))
    for length in np.unique(lengths[lengths > 1]).tolist():
        of_length = starts[lengths == length]
        if length > LONGEST_RUN:
            inner = np.stack([np.arange(length - 1), np.arange(1, length)], axis=1)
        else:
            inner = np.stack(np.triu_indices(length, 1), axis=1)
        for start in range(0, len(of_length), max(1, (1 << 20) // len(inner))):
            part = of_length[start : start + max(1, (1 << 20) // len(inner))]
            yield (part[:, None, None] + inner).reshape(-1, 2)


def groups(pairs: np.ndarray, count: int) -> list[np.ndarray]:
    """Connected rows of pairs (P, 2) among 0 ... count - 1: groups of two or more, each ascending."""
    root = np.arange(count)
    while True:  # every row takes the smallest of its neighbours, until nothing changes
        low = np.minimum(root[pairs[:, 0]], root[pairs[:, 1]])
        before = root.copy()
        np.minimum.at(root, pairs[:, 0], low)
        np.minimum.at(root, pairs[:, 1], low)
        root = root[root]
        if np.array_equal(root, before):
            break
    rows = np.unique(pairs)
    rows = rows[np.argsort(root[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(root[rows])) + 1
    return [group for group in np.split(rows, starts) if len(group) > 1]
