"""Similarities of many pairs of templates by blocked matrix products. Used by `protocols.ijb`."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

BLOCK = 4_000_000
"""Products held at once."""
SLAB = 2_000_000
"""Pairs that one thread sorts and looks up at a time."""
FEW = 100_000
"""Up to this many pairs are scored one by one, in the references' own operation."""


def pair_scores(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Dot products vectors[first] . vectors[second], float64 (P,), for float64 vectors (T, D) and int indices (P,).

    Benchmarks list millions of pairs of few templates: blocks of the full product are cheaper than gathering two
    rows a pair. Equal vectors get equal scores to the last bit, as ties matter to a ROC.
    """
    if len(first) <= FEW:
        return _one_by_one(vectors, first, second)
    with ThreadPoolExecutor(2) as pool:
        rows, columns = pool.map(lambda indices: _numbered(indices, len(vectors)), (first, second))
    if len(rows[0]) * len(columns[0]) > 64 * len(first):
        return _one_by_one(vectors, first, second)
    return _by_product(vectors, rows, columns)


def _one_by_one(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    scores = np.empty(len(first))
    for start in range(0, len(first), 4096):
        part = slice(start, start + 4096)
        scores[part] = np.sum(vectors[first[part]] * vectors[second[part]], axis=-1)
    return scores


def _by_product(
    vectors: np.ndarray, row_side: tuple[np.ndarray, np.ndarray], column_side: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    rows, row_of = _without_copies(vectors, *row_side)
    columns, column_of = _without_copies(vectors, *column_side)
    right = np.ascontiguousarray(vectors[columns].T)
    step = max(1, BLOCK // len(columns))
    blocks = -(-len(rows) // step)
    scores = np.empty(len(row_of))

    def sorted_slab(start: int) -> _Slab:
        part = slice(start, start + SLAB)
        return _Slab.of(row_of[part], column_of[part], step, len(columns), blocks, scores[part])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        slabs = list(pool.map(sorted_slab, range(0, len(row_of), SLAB)))
        for number in range(blocks):
            product = (vectors[rows[number * step : (number + 1) * step]] @ right).ravel()
            list(pool.map(lambda slab, number=number, product=product: slab.fill(number, product), slabs))
    return scores


@dataclass(frozen=True)
class _Slab:
    """A run of pairs, sorted by the block of the product that scores them.

    order: int64 (n,), pairs by block. places: int32 (n,), where in the block's product each of them lies.
    bounds: where each block's pairs begin. scores: the run's part of the result.
    """

    order: np.ndarray
    places: np.ndarray
    bounds: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(
        cls, row_of: np.ndarray, column_of: np.ndarray, step: int, columns: int, blocks: int, scores: np.ndarray
    ) -> "_Slab":
        block_of = (row_of // step).astype(np.uint8 if blocks <= 256 else np.uint16)
        order = np.argsort(block_of, kind="stable")  # a radix sort for so few bits
        places = (row_of % step) * np.int32(columns) + column_of  # below 2^31
        bounds = np.concatenate([[0], np.cumsum(np.bincount(block_of, minlength=blocks))])
        return cls(order, places[order], bounds, scores)

    def fill(self, number: int, product: np.ndarray) -> None:
        part = slice(self.bounds[number], self.bounds[number + 1])
        self.scores[self.order[part]] = product.take(self.places[part])


def _numbered(indices: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of `indices`, all below `count`, and the place of each index among them."""
    present = np.zeros(count, bool)
    present[indices] = True
    values = np.flatnonzero(present)
    places = np.zeros(count, np.int32)
    places[values] = np.arange(len(values), dtype=np.int32)
    return values, places[indices]


def _without_copies(vectors: np.ndarray, values: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`values` less the rows that equal an earlier row: a matrix product may round two equal rows differently."""
    if len(np.unique(vectors[values, 0])) == len(values):  # no two rows begin alike
        return values, places
    mixed = np.random.default_rng(0).normal(size=vectors.shape[1])
    keys = np.sum(vectors[values] * mixed, axis=1)  # equal for equal rows
    _, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(index) == len(values) or not np.array_equal(vectors[values[index]][inverse], vectors[values]):
        return values, places
    return values[index], inverse.astype(np.int32)[places]
