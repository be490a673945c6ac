"""IJB-B and IJB-C: loose crops aligned on the fly from the lists' points, 1:1 and 1:N, one row a pooling."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from marginface.evaluate.benchmark import Result, split_words
from marginface.evaluate.embeddings import Embeddings
from marginface.evaluate.images import Images
from marginface.faces.template import crop_face
from marginface.metrics.templates import Pooling, read_pooling
from marginface.protocols.ijb import Ijb, read_ijb


@dataclass(frozen=True)
class IjbBenchmark:
    """poolings: one row of results each."""

    ijb: Ijb
    images: Images
    poolings: Sequence[Pooling]

    @property
    def name(self) -> str:
        return self.ijb.name

    def score(self, embeddings: Embeddings, model: str, replicates: int = 1000) -> list[Result]:
        results: list[Result] = []
        for pooling in self.poolings:
            used = replace(pooling, flip=pooling.flip and embeddings.flipped is not None)
            templates = self.ijb.templates(embeddings.original, embeddings.flipped, used)
            row = model if len(self.poolings) == 1 and used == Pooling() else f"{model} {used.name}"
            results.append(self.ijb.verification(templates, row, replicates=min(replicates, 200)))
            results.append(self.ijb.identification(templates, row, replicates=replicates))
        return results

    def picture(self, side: int) -> np.ndarray:
        """The first image of a template."""
        _, first = np.unique(self.ijb.meta.templates, return_index=True)
        return self.images.picture(int(first[side]))

    def checksum(self) -> str:
        """Of the lists, not of the images: reading half a million files again would take minutes."""
        digest = hashlib.sha256()
        for field in fields(self.ijb.meta):
            digest.update(np.ascontiguousarray(getattr(self.ijb.meta, field.name)).tobytes())
        return f"{digest.hexdigest()} (lists)"


def open_ijbb(rest: str, resize: bool, allow_outside: bool) -> IjbBenchmark:
    """`ROOT,pooling=N1D1F1+adaface+...`; ROOT holds IJBB/meta and IJBB/loose_crop, or is IJBB."""
    return _open("IJBB", rest, allow_outside)


def open_ijbc(rest: str, resize: bool, allow_outside: bool) -> IjbBenchmark:
    """As `open_ijbb`."""
    return _open("IJBC", rest, allow_outside)


def _open(name: str, rest: str, allow_outside: bool) -> IjbBenchmark:
    root, options = split_words(rest, ["pooling"])
    poolings = [read_pooling(word) for word in options.get("pooling", "N1D1F1").split("+")]
    ijb = read_ijb(root, name, allow_outside=allow_outside)
    ijb.check()
    keys = [str(key) for key in ijb.meta.names]
    images = Images.of_files(name, keys, ijb.images, points=ijb.points, align=crop_face)
    return IjbBenchmark(ijb, images, poolings)
