"""Ten-fold verification accuracy: InsightFace's figure to the last digit, and the exact one beside it.

Pairs are compared by the squared distance of their embeddings and accepted when `distance < threshold`.
Called by `protocols.pairs`. InsightFace: arcface_torch/eval/verification.py (calculate_roc, calculate_val),
as golden-tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marginface.errors import InputError
from marginface.metrics.roc import crossing, trapezoid

GRID = np.arange(0, 4, 0.01)
"""InsightFace's thresholds on the squared distance for the accuracy."""
VAL_GRID = np.arange(0, 4, 0.001)
"""InsightFace's thresholds on the squared distance for VAL@FAR."""


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy of each fold at the threshold that is best on the other folds.

    accuracies: float64 (folds,). thresholds: float64 (folds,), squared distances.
    """

    accuracies: np.ndarray
    thresholds: np.ndarray

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Standard deviation over the folds, ddof 0 as the papers print it."""
        return float(np.std(self.accuracies))

    @property
    def threshold(self) -> float:
        """Mean of the folds' thresholds (squared distance)."""
        return float(np.mean(self.thresholds))

    @property
    def similarity(self) -> float:
        """The same threshold as a cosine similarity: |a - b|^2 = 2 - 2 cos for unit vectors."""
        return 1 - self.threshold / 2


@dataclass(frozen=True)
class GridRoc:
    """TAR and FAR of each fold at each threshold of a grid, float64 (folds, T): what InsightFace plots."""

    thresholds: np.ndarray
    fold_tar: np.ndarray
    fold_far: np.ndarray

    @property
    def tar(self) -> np.ndarray:
        """(T,), averaged over the folds."""
        return np.asarray(np.mean(self.fold_tar, axis=0))

    @property
    def far(self) -> np.ndarray:
        """(T,), averaged over the folds."""
        return np.asarray(np.mean(self.fold_far, axis=0))

    @property
    def auc(self) -> float:
        """Area under the averaged points, as far to the right as the grid reaches."""
        return trapezoid(self.far, self.tar)

    @property
    def eer(self) -> float | None:
        """Where the averaged points' polyline meets FAR = 1 - TAR; None where the grid does not reach FAR 1."""
        far, tar = self.far, self.tar
        if far[-1] < 1:
            return None
        right = max(1, int(np.argmax(far + tar >= 1)))
        return crossing(far[right - 1 : right + 1], tar[right - 1 : right + 1])


@dataclass(frozen=True)
class ValAtFar:
    """InsightFace's VAL@FAR: mean and deviation of TAR over the folds, and the FAR met on them."""

    val: float
    std: float
    far: float


def consecutive_folds(pairs: int, folds: int = 10) -> list[np.ndarray]:
    """Indices of each fold, in order; the first `pairs % folds` folds are one longer (as in scikit-learn)."""
    if not 2 <= folds <= pairs:
        raise InputError(f"{pairs} pairs cannot be split into {folds} folds")
    return np.array_split(np.arange(pairs), folds)


def squared_distances(
    embeddings: np.ndarray, first: np.ndarray, second: np.ndarray, *, normalise: bool = True
) -> np.ndarray:
    """|a - b|^2 of the pairs' embeddings, float64 (P,), each scaled to length 1 first unless told otherwise.

    embeddings: float (N, D). first, second: int (P,), rows of it. Raises InputError for a zero or non-finite
    row.
    """
    distances = np.empty(len(first), np.float64)
    for start in range(0, len(first), 128):  # blocks that stay in the cache
        block = slice(start, start + 128)
        sides = [embeddings[index[block]].astype(np.float64, copy=False) for index in (first, second)]
        if normalise:
            with np.errstate(invalid="ignore", divide="ignore"):
                sides = [side / np.sqrt(np.einsum("ij,ij->i", side, side))[:, None] for side in sides]
        gap = np.subtract(*sides)
        distances[block] = np.sum(np.square(gap, out=gap), axis=1)
    if not np.all(np.isfinite(distances)):
        check_embeddings(embeddings)
        raise InputError("some distances are not finite although the embeddings are; their values overflow")
    return distances


def check_embeddings(embeddings: np.ndarray, count: int | None = None) -> None:
    """Raises InputError unless `embeddings` is (count, D) with finite rows none of which is zero."""
    if embeddings.ndim != 2 or embeddings.shape[1] == 0 or (count is not None and len(embeddings) != count):
        wanted = "N" if count is None else str(count)
        raise InputError(f"embeddings have shape {embeddings.shape}; the benchmark needs ({wanted}, D)")
    squares = np.einsum("ij,ij->i", embeddings, embeddings, dtype=np.float64)
    for what, rows in (("not finite", ~np.isfinite(squares)), ("zero", squares == 0)):
        if bad := np.flatnonzero(rows).tolist():
            raise InputError(
                f"{len(bad)} of {len(embeddings)} embeddings are {what} (first: row {bad[0]}); embed those images again"
            )


def grid_accuracy(
    distances: np.ndarray, same: np.ndarray, folds: Sequence[np.ndarray], grid: np.ndarray = GRID
) -> tuple[FoldAccuracy, GridRoc]:
    """InsightFace's `calculate_roc`: the first best threshold of `grid` on the other folds, tested on each
    fold.

    distances: float (P,), squared. same: bool (P,). folds: index arrays. A rate of a class a fold lacks is 0.
    """
    accepted_same, accepted_other, same_count, other_count = _grid_counts(distances, same, folds, grid)
    correct = accepted_same + other_count[:, None] - accepted_other
    best = np.argmax(correct.sum(axis=0) - correct, axis=1)  # argmax: the first of equals
    accuracies = correct[np.arange(len(folds)), best] / (same_count + other_count)
    rates = GridRoc(grid, _rates(accepted_same, same_count), _rates(accepted_other, other_count))
    return FoldAccuracy(accuracies, grid[best]), rates


def exact_accuracy(distances: np.ndarray, same: np.ndarray, folds: Sequence[np.ndarray]) -> FoldAccuracy:
    """Like `grid_accuracy` over every threshold that tells the other folds' pairs apart.

    Candidates lie midway between neighbouring distinct distances of the training folds (and outside both
    ends); of equals the smallest is taken.
    """
    order = np.argsort(distances, kind="stable")
    ranked, signs = distances[order], np.where(same[order], 1, -1)
    fold_of = np.empty(len(distances), np.int64)
    for number, fold in enumerate(folds):
        fold_of[fold] = number
    ranked_fold = fold_of[order]
    accuracies, thresholds = np.empty(len(folds)), np.empty(len(folds))
    for number, fold in enumerate(folds):
        train = ranked_fold != number
        thresholds[number] = _best_cut(ranked[train], signs[train])
        accuracies[number] = np.mean((distances[fold] < thresholds[number]) == same[fold])
    return FoldAccuracy(accuracies, thresholds)


def val_at_far(
    distances: np.ndarray,
    same: np.ndarray,
    folds: Sequence[np.ndarray],
    far: float = 1e-3,
    grid: np.ndarray = VAL_GRID,
) -> ValAtFar:
    """InsightFace's `calculate_val`: TAR of each fold at the threshold whose FAR on the other folds is `far`.

    The threshold is interpolated between the last grid point with FAR <= `far` and the next (scipy 1.6-1.8),
    0 where the other folds never reach `far`. Raises InputError when a fold lacks one kind of pair (the
    reference divides by zero).
    """
    _, accepted_other, same_count, other_count = _grid_counts(distances, same, folds, grid)
    if lacking := np.flatnonzero((same_count == 0) | (other_count == 0)).tolist():
        raise InputError(f"VAL@FAR needs same and different pairs in every fold; fold(s) {lacking} hold one kind only")
    train_far = (accepted_other.sum(axis=0) - accepted_other) / (other_count.sum() - other_count)[:, None]
    thresholds = np.array([_threshold_at(far, rates, grid) for rates in train_far])
    values, fars = np.empty(len(folds)), np.empty(len(folds))
    for number, fold in enumerate(folds):
        accepted = distances[fold] < thresholds[number]
        values[number] = np.count_nonzero(accepted & same[fold]) / same_count[number]
        fars[number] = np.count_nonzero(accepted & ~same[fold]) / other_count[number]
    return ValAtFar(float(np.mean(values)), float(np.std(values)), float(np.mean(fars)))


def _grid_counts(
    distances: np.ndarray, same: np.ndarray, folds: Sequence[np.ndarray], grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Accepted same and different pairs, int64 (folds, T) each, and their totals a fold, (folds,) each."""
    # a pair is accepted by every threshold strictly above its distance: find the first, then count upwards
    first = np.searchsorted(grid, distances, side="right")
    width = len(grid) + 1
    counts = np.empty((2, len(folds), width), np.int64)
    for number, fold in enumerate(folds):
        cell = first[fold] + width * same[fold]
        counts[:, number] = np.bincount(cell, minlength=2 * width).reshape(2, width)
    running = np.cumsum(counts, axis=2)
    return running[1, :, :-1], running[0, :, :-1], running[1, :, -1], running[0, :, -1]


def _rates(accepted: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """accepted (folds, T) / totals (folds,), 0 where a fold has none of that kind."""
    rates: np.ndarray = accepted / np.maximum(totals, 1)[:, None]
    return rates


def _best_cut(ranked: np.ndarray, signs: np.ndarray) -> float:
    """The threshold on rising distances `ranked` that accepts the most +1 and the fewest -1 of `signs`."""
    gain = np.concatenate([[0], np.cumsum(signs)])  # gain[k]: accept the k closest
    splits = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])  # equal distances stay together
    cut = int(np.argmax(np.where(splits, gain, np.iinfo(np.int64).min)))
    if cut == 0:
        return float(ranked[0])  # distance < threshold is strict: accepts nothing
    below = float(ranked[cut - 1])
    middle = (below + float(ranked[cut])) / 2 if cut < len(ranked) else below
    return max(middle, float(np.nextafter(below, np.inf)))


def _threshold_at(far: float, rates: np.ndarray, grid: np.ndarray) -> float:
    if rates[-1] < far:
        return 0.0
    last = int(np.searchsorted(rates, far, side="right")) - 1
    if last == len(grid) - 1:
        return float(grid[-1])
    slope = (grid[last + 1] - grid[last]) / (rates[last + 1] - rates[last])
    return float(grid[last] + slope * (far - rates[last]))
