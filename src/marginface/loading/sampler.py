"""In which order the images are seen: pure functions of (seed, step), so that resuming needs no state."""

import numpy as np


def batches_per_epoch(length: int, batch_size: int) -> int:
    """Whole batches in one pass; the incomplete last one is dropped."""
    return length // batch_size


def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(length), int64, another one each epoch."""
    return np.random.default_rng([seed, epoch]).permutation(length)


class ShuffledBatches:
    """The indices of the batch of any step, in O(1) within an epoch.

    Every process of a run calls this with the same arguments and takes its own slice of the global batch,
    so that the images of a step do not depend on how many processes there are.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.per_epoch = batches_per_epoch(length, batch_size)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def indices(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch, int64 indices (batch_size,)) of step 0, 1, 2 ..."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self.length, self.seed, epoch)
        start = position * self.batch_size
        return epoch, self._order[start : start + self.batch_size]
