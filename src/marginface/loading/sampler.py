"""In which order the images are seen: pure functions of (seed, step), so that resuming needs no state."""

from collections.abc import Callable

import numpy as np

from marginface.errors import InputError

SAMPLINGS = ("shuffled", "balanced", "pxk")
Order = Callable[[int], np.ndarray]
"""Epoch -> int64 rows of the set in the order they are seen; at least as many as the epoch has in whole batches."""


class Batches:
    """The rows of the batch of any step, in O(1) within an epoch. The incomplete last batch of an epoch is dropped.

    Every process of a run calls this with the same arguments and takes its own slice of the global batch,
    so that the images of a step do not depend on how many processes there are.
    """

    def __init__(self, length: int, batch_size: int, order: Order) -> None:
        self.batch_size, self.per_epoch = batch_size, length // batch_size
        self._order = order
        self._epoch, self._rows = -1, np.empty(0, np.int64)

    def indices(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch, int64 rows (batch_size,)) of step 0, 1, 2 ..."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._order(epoch)
        start = position * self.batch_size
        return epoch, self._rows[start : start + self.batch_size]


def create_batches(
    sampling: str, labels: Callable[[], np.ndarray], length: int, batch_size: int, seed: int, images_per_identity: int
) -> Batches:
    """shuffled: every image once an epoch. balanced: every identity as often as any other, images with replacement
    (what OpenVINO's trainer calls weighted). pxk: batch_size / images_per_identity identities, that many of each.

    labels: gives int64 (length,); asked only where it matters, since that may cost a pass over the set.
    Raises InputError for another sampling, and for a batch that cannot be made of so many identities.
    """
    if sampling == "shuffled":
        return Batches(length, batch_size, lambda epoch: epoch_order(length, seed, epoch))
    people = People(labels()) if sampling in SAMPLINGS else None
    if people is None:
        raise InputError(f"data.sampling is {sampling}: give one of {', '.join(SAMPLINGS)}")
    if sampling == "balanced":
        return Batches(length, batch_size, lambda epoch: balanced_order(people, length, seed, epoch))
    identities, rest = divmod(batch_size, images_per_identity)
    if rest or images_per_identity < 1:
        raise InputError(
            f"data.batch_size {batch_size} is no multiple of data.images_per_identity {images_per_identity}: "
            f"pxk takes so many images of each identity"
        )
    if identities > len(people):
        raise InputError(
            f"data.batch_size {batch_size} needs {identities} identities of {images_per_identity} images, but there "
            f"are {len(people)}: give --data.batch_size {len(people) * images_per_identity} or less"
        )
    count = length // batch_size * identities
    return Batches(
        length, batch_size, lambda epoch: pxk_order(people, count, identities, images_per_identity, seed, epoch)
    )


class People:
    """The rows of each identity that has any: `rows[starts[i] : starts[i] + counts[i]]`, i from 0 to len - 1."""

    def __init__(self, labels: np.ndarray) -> None:
        self.rows = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        self.counts = counts[counts > 0]
        self.starts = np.cumsum(self.counts) - self.counts

    def __len__(self) -> int:
        return len(self.counts)


def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(length), int64, another one each epoch."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def balanced_order(people: People, length: int, seed: int, epoch: int) -> np.ndarray:
    """int64 (length,): each time any identity, and any image of it."""
    rng = np.random.default_rng([seed, epoch, SAMPLINGS.index("balanced")])
    chosen = rng.integers(0, len(people), length)
    image = (rng.random(length) * people.counts[chosen]).astype(np.int64)
    order: np.ndarray = people.rows[people.starts[chosen] + image]
    return order


def pxk_order(people: People, count: int, together: int, images: int, seed: int, epoch: int) -> np.ndarray:
    """int64 (count * images,): `count` identities after each other, `images` of each.

    Identities take turns, and the `together` of a batch all differ. The images of one come in another order each epoch,
    each once before any comes again, and twice in a batch only if there are fewer than `images`.
    """
    rng = np.random.default_rng([seed, epoch, SAMPLINGS.index("pxk")])
    a_turn = len(people) // together * together
    turns = -(-count // a_turn)
    chosen = np.concatenate([rng.permutation(len(people))[:a_turn] for _ in range(turns)])[:count]
    turn = np.repeat(np.arange(turns), a_turn)[:count]
    owner = np.repeat(np.arange(len(people)), people.counts)
    mixed = people.rows[np.lexsort((rng.random(len(owner)), owner))]
    image = (turn[:, None] * images + np.arange(images)) % people.counts[chosen][:, None]
    order: np.ndarray = mixed[people.starts[chosen][:, None] + image].ravel()
    return order
