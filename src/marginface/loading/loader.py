"""Readers -> batches: decodes and augments ahead of the training step in processes, in a fixed order."""

import itertools
import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from marginface.errors import InputError
from marginface.loading.augment import AugmentConfig, augment
from marginface.loading.decode import decode_batch
from marginface.loading.sampler import create_batches
from marginface.loading.workers import WorkerLost, Workers, shared_array
from marginface.ranges import check_numbers
from marginface.readers.base import Reader

UNREADABLE_LIMIT = 0.001  # share of a set's images that may be unreadable before the run stops


@dataclass
class DataConfig:
    """What is learned from, and how it reaches the network.

    Args:
        train: training set: a path, recognised by its content, or synthetic:identities=500,images=20
        val: benchmarks the model is evaluated on: pairs:FOLDER, closedset:FOLDER, synthetic:..., see `marginface
            evaluate`; all their images are decoded before the first step
        batch_size: images per step over all processes
        size: side in pixels of the square images the network sees
        resize: scale images of another size instead of refusing them
        workers: processes that decode and augment (threads where the system is not Linux)
        cache: keep the decoded images in memory after the first epoch
        sampling: shuffled: every image once an epoch; balanced: every identity equally often; pxk: batches of
            batch_size / images_per_identity identities with images_per_identity images each
        images_per_identity: the K of pxk
        augment: random changes of the training images
        allow_outside: also read files outside of the data set's folder that its symbolic links or lists lead to
    """

    train: str = "synthetic"
    val: list[str] = field(default_factory=list)
    batch_size: int = 128
    size: int = 112
    resize: bool = False
    workers: int = 2
    cache: bool = False
    sampling: Literal["shuffled", "balanced", "pxk"] = "shuffled"
    images_per_identity: int = 4
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    allow_outside: bool = False

    def __post_init__(self) -> None:
        ranges = {"batch_size": "[1, 1e8]", "size": "[8, 8192]", "images_per_identity": "[1, 1e6]"}
        check_numbers(self, "data", workers="[-1e9, 1024]", **ranges)
        if self.workers < 1:
            raise InputError(
                f"data.workers is {self.workers}: images are decoded beside the training step, "
                f"give 1 or more (this machine has {os.cpu_count()} cores)"
            )
        if self.batch_size < 2:
            raise InputError(f"data.batch_size is {self.batch_size}: batch norm needs 2 images or more")


@dataclass(frozen=True)
class Batch:
    """images: uint8 RGB (n, size, size, 3); labels: int64 (n,); indices: int64 (n,) into the reader.

    n is the share of the batch of this process, less the images that could not be read: `unreadable` says
    which and why, as {index: reason}.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    unreadable: dict[int, str]


_Found = tuple[np.ndarray, dict[int, str]]
"""int64 indices of the images that could be read, and {index: reason} of the others."""


def check_shares(config: DataConfig, world_size: int) -> None:
    """Raise InputError where the processes cannot have equal shares of a batch."""
    if rest := config.batch_size % world_size:
        lower, size = config.batch_size - rest, config.batch_size
        near = [f"--data.batch_size {n}" for n in (lower, lower + world_size) if n >= max(2, world_size)]
        raise InputError(
            f"data.batch_size {size} cannot be shared by {world_size} processes: give {' or '.join(near)}, or another "
            f"number of processes; a run that is resumed goes on at the same place"
        )


class Loader:
    """Endless batches of `reader` from any step on; the batch of a step depends on (seed, step) alone."""

    def __init__(self, reader: Reader, config: DataConfig, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if len(reader) < config.batch_size:
            raise InputError(
                f"data.batch_size is {config.batch_size} but {config.train} has only {len(reader)} images: "
                f"give --data.batch_size {len(reader)} or less"
            )
        check_shares(config, world_size)
        self.reader, self.config, self.seed = reader, config, seed
        self.batches = create_batches(
            config.sampling, lambda: reader.labels, len(reader), config.batch_size, seed, config.images_per_identity
        )
        self.unreadable: dict[int, str] = {}
        share = config.batch_size // world_size
        self._mine = slice(rank * share, (rank + 1) * share)
        self._shape = share, config.size, config.size, 3
        self._cache = _Cache(len(reader), config.size) if config.cache else None

    def start(self, step: int) -> Generator[Batch, None, None]:
        """Batches of `step`, step + 1, ... without end.

        Raises InputError once too many images are unreadable, and where a process that loads them dies repeatedly.
        """
        batches = map(self.batches.indices, itertools.count(step))
        tasks = ((epoch, indices[self._mine]) for epoch, indices in batches)
        with closing(Workers(self.config.workers, self._load, self._shape)) as workers:
            while True:
                workers.fill(tasks)
                images, (indices, unreadable) = self._result(workers)
                self._count(unreadable)
                yield Batch(images, self.reader.labels[indices], indices, unreadable)

    def _result(self, workers: Workers) -> tuple[np.ndarray, _Found]:
        try:
            return workers.result()
        except WorkerLost as lost:
            _, indices = lost.task
            raise InputError(
                f"{self.config.train}: {lost}, at the batch that begins with {self.key(int(indices[0]))}; lower "
                f"--data.workers if the memory is full, else look at the images of this batch"
            ) from lost

    def load(self, epoch: int, indices: np.ndarray) -> Batch:
        """The images at `indices` as the network sees them in `epoch`."""
        images = np.empty((len(indices), *self._shape[1:]), np.uint8)
        count, (indices, unreadable) = self._load(images, epoch, indices)
        return Batch(images[:count], self.reader.labels[indices], indices, unreadable)

    def _load(self, out: np.ndarray, epoch: int, indices: np.ndarray) -> tuple[int, _Found]:
        """Puts the images that can be read into the first rows of `out`: (how many, (which they are, why not all))."""
        unreadable = self._decoded(indices, out[: len(indices)])
        if unreadable:
            good = np.array([int(i) not in unreadable for i in indices], bool)
            out[: good.sum()] = out[: len(indices)][good]
            indices = indices[good]
        images = out[: len(indices)]
        augment(images, indices, epoch, self.seed, self.config.augment, out=images)
        return len(indices), (indices, unreadable)

    def plain(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels at `indices` without random changes, less those that cannot be read."""
        images = np.empty((len(indices), *self._shape[1:]), np.uint8)
        unreadable = self._decoded(indices, images)
        good = np.array([int(i) not in unreadable for i in indices], bool)
        return images[good], self.reader.labels[indices[good]]

    def key(self, index: int) -> str:
        """The name of a record, for messages."""
        return self.reader.read([index])[0].key

    def _decoded(self, indices: np.ndarray, out: np.ndarray) -> dict[int, str]:
        """Puts the images into `out`; {index: reason} of those that cannot be read."""
        if self._cache is not None and self._cache.holds(indices):
            np.take(self._cache.images, indices, axis=0, out=out, mode="clip")
            return {}
        records = self.reader.read(indices.tolist())
        _, failures = decode_batch(records, self.config.size, self.config.resize, out=out)
        unreadable = {int(indices[position]): reason for position, reason in failures.items()}
        if self._cache is not None and not unreadable:
            self._cache.keep(indices, out)
        return unreadable

    def _count(self, unreadable: dict[int, str]) -> None:
        self.unreadable.update(unreadable)
        if unreadable and len(self.unreadable) > UNREADABLE_LIMIT * len(self.reader):
            raise InputError(
                f"{self.config.train}: {len(self.unreadable)} of {len(self.reader)} images cannot be read, more "
                f"than the {UNREADABLE_LIMIT:.1%} that may be skipped; repair or remove them: "
                + " ".join(list(self.unreadable.values())[:3])
            )


class _Cache:
    """Decoded images of the whole set, filled as they are first seen; shared by the workers."""

    def __init__(self, length: int, size: int) -> None:
        self.images = shared_array(length * size * size * 3).reshape(length, size, size, 3)
        self._filled = shared_array(length, bool)

    def holds(self, indices: np.ndarray) -> bool:
        return bool(self._filled[indices].all())

    def keep(self, indices: np.ndarray, images: np.ndarray) -> None:
        self.images[indices] = images
        self._filled[indices] = True
