"""What turns faces into vectors for a gallery: a model of ours, or dlib's. Called by `people` and the commands."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from marginface.embedder import CONFIG, WEIGHTS, Embedder, check_embeddings, default_device
from marginface.errors import InputError
from marginface.faces.template import crop_face
from marginface.untrusted import open_file, read_json

DLIB_THRESHOLDS = {1e-2: 0.9108, 1e-3: 0.9291, 1e-4: 0.9427}
"""FAR -> cosine: over 674,493 pairs of different people among LFW's validation people, found and cut out by MTCNN.

Measured by benchmarks/detection.py; 67 pairs lie above the last one, too few for a lower FAR.
"""


class Network(Protocol):
    """The part that differs: see `DlibModel` for the meaning of each."""

    @property
    def length(self) -> int: ...

    @property
    def quality(self) -> bool: ...

    def crop(self, image: np.ndarray, points: np.ndarray) -> np.ndarray: ...

    def raw(self, chunks: Iterable[np.ndarray | Sequence[np.ndarray]], flip: bool = True) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class FaceModel:
    """A network with its origin. fingerprint: of the weights and preprocessing, so that no two models' vectors mix.

    thresholds: false accept rate of one comparison -> lowest cosine similarity that is accepted.
    """

    name: str
    fingerprint: str
    network: Network
    thresholds: Mapping[float, float] = field(default_factory=dict)

    def crop(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """RGB uint8 (H, W, 3) and five points (5, 2) -> the face as `embed` takes it."""
        return self.network.crop(image, points)

    def embed(self, faces: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """float32 (n, length), L2-normalised, and weights float32 (n,) for pooling: the norm where it tells quality."""
        chunks = [faces[start : start + 32] for start in range(0, len(faces), 32)]
        raw = np.concatenate([np.empty((0, self.network.length), np.float32), *self.network.raw(chunks)])
        check_embeddings(raw)
        norms = np.linalg.norm(raw, axis=1)
        return raw / np.maximum(norms, 1e-12)[:, None], norms if self.network.quality else np.ones_like(norms)

    def threshold(self, far: float) -> float:
        """The lowest accepted cosine at this FAR. Raises InputError when nobody measured it, naming what was."""
        if far in self.thresholds:
            return self.thresholds[far]
        measured = ", ".join(f"{value:g}" for value in sorted(self.thresholds)) or "none"
        raise InputError(
            f"{self.name} has no threshold for FAR {far:g} (measured: {measured}); store one with "
            f"`marginface threshold`, or give --threshold"
        )


class OwnNetwork:
    """One of our embedders, with the crop that its preprocessing tells."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.quality = getattr(embedder.preprocessing, "quality", None) == "norm"
        blank = np.zeros((1, *[embedder.preprocessing.size] * 2, 3), np.uint8)
        self.length = next(embedder.raw([blank])).shape[1]

    def crop(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        return crop_face(image, points, self._embedder.preprocessing.size, self._embedder.preprocessing.template)

    def raw(self, chunks: Iterable[np.ndarray | Sequence[np.ndarray]], flip: bool = True) -> Iterator[np.ndarray]:
        return self._embedder.raw(chunks, flip)


def open_model(spec: str = "dlib") -> FaceModel:
    """ "dlib", or the folder of a model or of a run. Raises InputError naming what is missing."""
    if spec == "dlib":
        from marginface.gallery.dlib_model import DlibModel  # needs a library that the core does without

        network = DlibModel()
        return FaceModel("dlib", _checksum([network.weights]), network, DLIB_THRESHOLDS)
    run = Path(spec) / "model"
    folder = run if run.is_dir() else Path(spec)
    embedder = Embedder.load(folder, default_device())
    description = read_json(folder / CONFIG)
    if description["preprocessing"].get("template") == "arcface":
        del description["preprocessing"]["template"]  # a model without the field has the same
    used = json.dumps({key: description.get(key) for key in ("model", "preprocessing")}, sort_keys=True)
    fingerprint = _checksum([folder / WEIGHTS], used.encode())
    return FaceModel(str(folder), fingerprint, OwnNetwork(embedder), _stored(embedder.notes, folder))


def _stored(notes: Mapping[str, Any], folder: Path) -> dict[float, float]:
    """FAR -> threshold, as `marginface threshold` left them in the notes. Raises InputError for anything else."""
    advice = notes.get("threshold", [])
    try:
        pairs = [(entry["far"], entry["threshold"]) for entry in (advice if isinstance(advice, list) else [advice])]
        sound = all(0 < far <= 1 and -1 <= threshold <= 1 for far, threshold in pairs)
    except (TypeError, KeyError):
        sound = False
    if not sound:
        raise InputError(
            f"{folder / CONFIG}: notes.threshold is no list of thresholds; store them again with threshold"
        )
    return {float(far): float(threshold) for far, threshold in pairs}


def _checksum(files: Sequence[Path], more: bytes = b"") -> str:
    digest = hashlib.sha256(more)
    for file in files:
        with open_file(file) as stream:
            while data := stream.read(1 << 20):
                digest.update(data)
    return digest.hexdigest()[:16]
