"""TinyFace: small faces searched among many, as `tinyface:ROOT`."""

import hashlib
from dataclasses import dataclass

import numpy as np

from marginface.evaluate.benchmark import Result, split_words
from marginface.evaluate.embeddings import Embeddings
from marginface.evaluate.images import Images
from marginface.loading.alignment import read_alignment
from marginface.protocols.tinyface import ALIGNED, Tinyface, read_tinyface


@dataclass(frozen=True)
class TinyfaceBenchmark:
    """Probes against matches and distractors."""

    tinyface: Tinyface
    images: Images
    name: str = "TinyFace"

    def score(self, embeddings: Embeddings, model: str, replicates: int = 1000) -> list[Result]:
        return [self.tinyface.score(embeddings.fused, model, replicates=replicates)]

    def picture(self, side: int) -> np.ndarray:
        return self.images.picture(side)

    def checksum(self) -> str:
        return hashlib.sha256((self.images.checksum() + repr(self.tinyface.labels.tolist())).encode()).hexdigest()


def open_tinyface(rest: str, resize: bool, allow_outside: bool) -> TinyfaceBenchmark:
    """`ROOT,aligned=FOLDER`; see `protocols.tinyface`."""
    root, options = split_words(rest, ["aligned"])
    aligned = options.get("aligned", ALIGNED)
    tinyface = read_tinyface(root, aligned, allow_outside)
    keys = [str(path.relative_to(root / aligned)) for path in tinyface.images]
    alignment = read_alignment(root / aligned, allow_outside)
    images = Images.of_files("TinyFace", keys, tinyface.images, resize, alignment=alignment)
    return TinyfaceBenchmark(tinyface, images)
