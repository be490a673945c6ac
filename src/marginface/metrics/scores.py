"""Similarities of many pairs of templates by blocked matrix products. Used by `protocols.ijb`."""

import numpy as np

BLOCK = 4_000_000
"""Products held at once."""
FEW = 100_000
"""Up to this many pairs are scored one by one, in the references' own operation."""


def pair_scores(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Dot products vectors[first] . vectors[second], float64 (P,), for float64 vectors (T, D) and int indices (P,).

    Benchmarks list millions of pairs of few templates: blocks of the full product are cheaper than gathering two
    rows a pair. Equal vectors get equal scores to the last bit, as ties matter to a ROC.
    """
    rows, row_of = _numbered(first, len(vectors))
    columns, column_of = _numbered(second, len(vectors))
    if len(first) <= FEW or len(rows) * len(columns) > 64 * len(first):
        return _one_by_one(vectors, first, second)
    return _by_product(vectors, (rows, row_of), (columns, column_of))


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
    block_of = (row_of // step).astype(np.uint16)
    place = (row_of % step) * np.int32(len(columns)) + column_of  # in the block's product, below 2^31
    order = np.argsort(block_of, kind="stable")  # a radix sort for 16 bits
    blocks = -(-len(rows) // step)
    bounds = np.searchsorted(block_of[order], np.arange(blocks + 1))
    scores = np.empty(len(row_of))
    for number in range(blocks):
        pairs = order[bounds[number] : bounds[number + 1]]
        product = vectors[rows[number * step : (number + 1) * step]] @ right
        scores[pairs] = product.ravel().take(place[pairs])
    return scores


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
    mixed = np.random.default_rng(0).normal(size=vectors.shape[1])
    keys = np.sum(vectors[values] * mixed, axis=1)  # equal for equal rows
    _, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(index) == len(values) or not np.array_equal(vectors[values[index]][inverse], vectors[values]):
        return values, places
    return values[index], inverse.astype(np.int32)[places]
