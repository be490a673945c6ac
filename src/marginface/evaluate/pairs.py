"""Verification: a folder with pairs.txt, a stored set such as lfw.bin, pairs drawn from procedural people."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marginface.evaluate.benchmark import Result, beside, split_words
from marginface.evaluate.embeddings import Embeddings
from marginface.evaluate.images import Images, open_set
from marginface.loading.alignment import read_alignment
from marginface.protocols.pairs import Pairs, make_folder_pairs, make_pairs, read_pairs, stored_pairs
from marginface.readers import open_reader
from marginface.readers.verification import open_verification


@dataclass(frozen=True)
class PairsBenchmark:
    """Same or different? Ten-fold accuracy, ROC and all that is read off it."""

    pairs: Pairs
    images: Images

    @property
    def name(self) -> str:
        return self.pairs.name

    def score(self, embeddings: Embeddings, model: str, replicates: int = 1000) -> list[Result]:
        return [self.pairs.score(embeddings.fused, model, xnorm=embeddings.xnorm, replicates=replicates)]

    def picture(self, side: int) -> np.ndarray:
        return self.images.picture(side)

    def checksum(self) -> str:
        digest = hashlib.sha256(self.images.checksum().encode())
        for part in (self.pairs.first, self.pairs.second, self.pairs.same):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def open_folder(rest: str, resize: bool, allow_outside: bool) -> PairsBenchmark:
    """`FOLDER` of one folder a person, with FOLDER/pairs.txt or `pairs=FILE`; without either, pairs are drawn.

    They are also drawn from any other data set.
    """
    folder, options = split_words(rest, ["pairs"])
    listed = beside(folder, options.get("pairs"), "pairs.txt", allow_outside)
    alignment = read_alignment(folder, allow_outside)
    if "pairs" in options or listed.is_file():
        pairs = read_pairs(listed, folder, allow_outside=allow_outside)
    elif reader := open_set(folder, allow_outside):
        pairs = make_pairs(reader.labels, min(10, reader.num_classes // 2), name=folder.name)
        rows = [int(str(index)) for index in pairs.images]
        images = Images.of_reader(pairs.name, reader, rows, resize, alignment)
        return PairsBenchmark(dataclasses.replace(pairs, keys=images.keys), images)
    else:
        pairs = make_folder_pairs(folder, allow_outside=allow_outside)
    paths = [Path(str(path)) for path in pairs.images]
    return PairsBenchmark(pairs, Images.of_files(pairs.name, pairs.keys, paths, resize, alignment=alignment))


def open_stored(path: str, resize: bool, allow_outside: bool) -> PairsBenchmark:
    """A stored set of pairs, in any layout of `readers.verification`."""
    stored = open_verification(path, allow_outside)
    pairs = stored_pairs(stored.issame, stored.name)
    images = Images(pairs.name, pairs.keys, lambda positions: [stored.images[i] for i in positions], resize)
    return PairsBenchmark(pairs, images)


def open_synthetic(rest: str, resize: bool, allow_outside: bool) -> PairsBenchmark:
    """Procedural people, as `synthetic:` among the data sets; they need no files."""
    reader = open_reader(f"synthetic:{rest}")
    pairs = make_pairs(reader.labels, name="synthetic")
    records = [int(str(index)) for index in pairs.images]
    return PairsBenchmark(
        pairs, Images(pairs.name, pairs.keys, lambda positions: reader.read([records[i] for i in positions]), resize)
    )
