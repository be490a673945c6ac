"""Similarities of many pairs of templates by blocked matrix products. Used by `protocols.ijb`."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BLOCK = 100_000_000
"""Products held at once, 0.8 GB."""
PART = 500_000
"""Pairs that one thread looks up at a time."""
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
        rows, columns = pool.map(lambda indices: _distinct(vectors, indices), (first, second))
    if len(rows[0]) * len(columns[0]) > 64 * len(first):
        return _one_by_one(vectors, first, second)
    return _by_product(vectors, rows, columns, first, second)


def _one_by_one(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    scores = np.empty(len(first))
    for start in range(0, len(first), 4096):
        part = slice(start, start + 4096)
        scores[part] = np.sum(vectors[first[part]] * vectors[second[part]], axis=-1)
    return scores


def _by_product(
    vectors: np.ndarray,
    row_side: tuple[np.ndarray, np.ndarray],
    column_side: tuple[np.ndarray, np.ndarray],
    first: np.ndarray,
    second: np.ndarray,
) -> np.ndarray:
    (rows, row_of), (columns, column_of) = row_side, column_side
    right = np.ascontiguousarray(vectors[columns].T)
    step = max(1, BLOCK // len(columns))
    scores = np.empty(len(first))

    def look_up(product: np.ndarray, low: int, start: int) -> None:
        part = slice(start, start + PART)
        row = row_of.take(first[part]) - low
        place = row * len(columns) + column_of.take(second[part])
        if len(product) == len(rows):
            scores[part] = product.take(place)
        else:
            inside = np.flatnonzero((row >= 0) & (row < len(product)))
            scores[part][inside] = product.take(place[inside])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for low in range(0, len(rows), step):
            product = vectors[rows[low : low + step]] @ right
            list(
                pool.map(
                    lambda start, low=low, product=product: look_up(product, low, start), range(0, len(first), PART)
                )
            )
    return scores


def _distinct(vectors: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows among vectors[indices], as places in `vectors`, and which of them each vector is, int64 (T,).

    Rows that equal an earlier row count as that row: a matrix product may round two equal rows differently.
    """
    values = np.flatnonzero(np.bincount(indices, minlength=len(vectors)))
    places = np.zeros(len(vectors), np.int64)
    places[values] = np.arange(len(values))
    if len(np.unique(vectors[values, 0])) == len(values):  # no two rows begin alike
        return values, places
    mixed = np.random.default_rng(0).normal(size=vectors.shape[1])
    keys = np.sum(vectors[values] * mixed, axis=1)  # equal for equal rows
    _, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(index) == len(values) or not np.array_equal(vectors[values[index]][inverse], vectors[values]):
        return values, places
    places[values] = inverse
    return values[index], places
