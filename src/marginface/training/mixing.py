"""New people and old ones in every batch, so that fine-tuning does not forget. Made by the training loop."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from marginface.errors import InputError
from marginface.loading.loader import Batch, DataConfig, Loader
from marginface.ranges import check_numbers
from marginface.readers import open_reader
from marginface.readers.base import Reader, Record


@dataclass
class OldConfig:
    """People the model was trained on, seen again beside the new ones so that they are not forgotten.

    Args:
        train: their images, as data.train; the people of both sets count as different ones
        share: their share of every batch
    """

    train: str = ""
    share: float = 0.25

    def __post_init__(self) -> None:
        check_numbers(self, "old", share="(0, 1)")


class BothReader:
    """Two sets as one: the old set's indices and labels follow the new one's."""

    def __init__(self, new: Reader, old: Reader) -> None:
        self.new, self.old = new, old
        self.labels = np.concatenate([new.labels, old.labels + new.num_classes])
        self.num_classes = new.num_classes + old.num_classes
        self.left_out = getattr(new, "left_out", {})

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[Record]:
        return [self._read_one(int(index)) for index in indices]

    def _read_one(self, index: int) -> Record:
        if index < len(self.new):
            return self.new.read([index])[0]
        record = self.old.read([index - len(self.new)])[0]
        return replace(record, label=record.label + self.new.num_classes)


class MixedLoader:
    """Does what `Loader` does, with `old.share` of every batch from the old set; an epoch is one of the new set."""

    def __init__(
        self, new: Reader, config: DataConfig, old: OldConfig, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        count = round(old.share * config.batch_size / world_size) * world_size
        if not 0 < count < config.batch_size:
            raise InputError(
                f"old.share {old.share} of data.batch_size {config.batch_size} is nobody or everybody; "
                f"give a larger batch or another share"
            )
        self.config, self.reader = config, BothReader(new, open_reader(old.train, config.allow_outside))
        self.new = Loader(new, replace(config, batch_size=config.batch_size - count), seed, rank, world_size)
        # another seed, or both would be turned and blurred alike
        olds = replace(config, train=old.train, batch_size=count)
        self.old = Loader(self.reader.old, olds, seed + 1, rank, world_size)
        self.batches = self.new.batches

    def start(self, step: int) -> Generator[Batch, None, None]:
        """Batches of `step`, step + 1, ... without end, old images spread evenly among the new ones."""
        with closing(self.new.start(step)) as new, closing(self.old.start(step)) as old:
            while True:
                yield self._together(next(new), next(old))

    def load(self, epoch: int, indices: np.ndarray) -> Batch:
        """The images at `indices` as the network sees them in `epoch`: the new ones first."""
        new, old = self._split(indices)
        return self._together(self.new.load(epoch, new), self.old.load(epoch, old))

    def plain(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels at `indices` without random changes, the new ones first, less those not readable."""
        new, old = self._split(indices)
        parts = [loader.plain(part) for loader, part in ((self.new, new), (self.old, old)) if len(part)]
        labels = [part[1] for part in parts]
        if len(old):
            labels[-1] = labels[-1] + self.reader.new.num_classes
        return np.concatenate([part[0] for part in parts]), np.concatenate(labels)

    def key(self, index: int) -> str:
        """The name of a record, for messages."""
        return self.reader.read([index])[0].key

    def _split(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.reader.new)
        return indices[indices < count], indices[indices >= count] - count

    def _together(self, new: Batch, old: Batch) -> Batch:
        count, people = len(self.reader.new), self.reader.new.num_classes
        places = [(np.arange(len(part.labels)) + 0.5) / max(len(part.labels), 1) for part in (new, old)]
        order = np.argsort(np.concatenate(places), kind="stable")
        images = [part.images for part in (new, old) if len(part.images)]
        return Batch(
            np.concatenate(images)[order] if images else new.images,
            np.concatenate([new.labels, old.labels + people])[order],
            np.concatenate([new.indices, old.indices + count])[order],
            {**new.unreadable, **{index + count: reason for index, reason in old.unreadable.items()}},
        )
