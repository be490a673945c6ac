"""A folder of known people, as `closedset:FOLDER`: pair-wise F1 over a sweep, and who is who."""

import hashlib
from dataclasses import dataclass

import numpy as np

from marginface.errors import InputError
from marginface.evaluate.benchmark import Result, split_words
from marginface.evaluate.embeddings import Embeddings
from marginface.evaluate.images import Images, open_set
from marginface.loading.alignment import read_alignment
from marginface.protocols.closed_set import ClosedSet, make_closed_set, read_closed_set


@dataclass(frozen=True)
class ClosedSetBenchmark:
    """Everybody's first images are enrolled, all others are looked up."""

    people: ClosedSet
    images: Images

    @property
    def name(self) -> str:
        return self.people.name

    def score(self, embeddings: Embeddings, model: str, replicates: int = 1000) -> list[Result]:
        return [self.people.score(embeddings.fused, model, replicates=replicates)]

    def picture(self, side: int) -> np.ndarray:
        return self.images.picture(side)

    def checksum(self) -> str:
        return hashlib.sha256((self.images.checksum() + repr(self.people.enrolled.tolist())).encode()).hexdigest()


def open_closed_set(rest: str, resize: bool, allow_outside: bool) -> ClosedSetBenchmark:
    """`SET,enrol=N`, a folder of people or any other data set; N images of each person are enrolled, by default 1."""
    folder, options = split_words(rest, ["enrol"])
    enrol = options.get("enrol", "1")
    if not enrol.isdecimal() or int(enrol) < 1:
        raise InputError(f"enrol is how many images of each person are enrolled, at least 1, not '{enrol}'")
    alignment = read_alignment(folder, allow_outside)
    if reader := open_set(folder, allow_outside):
        names = getattr(reader, "class_names", None) or [str(label) for label in range(reader.num_classes)]
        rows = range(len(reader))
        people = make_closed_set(folder, rows, reader.labels, names, int(enrol))
        return ClosedSetBenchmark(people, Images.of_reader(people.name, reader, rows, resize, alignment))
    people = read_closed_set(folder, int(enrol), allow_outside=allow_outside)
    keys = [str(path.relative_to(folder)) for path in people.images]
    return ClosedSetBenchmark(people, Images.of_files(people.name, keys, people.images, resize, alignment=alignment))
