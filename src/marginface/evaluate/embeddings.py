"""What a network says about a benchmark's images: both passes kept apart, made here or read from a file."""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate.images import Images

Progress = Callable[[int, int], None]
"""Told how many of how many images are done."""


@dataclass(frozen=True)
class Embeddings:
    """original, flipped: float32 (N, D), un-normalised, of the images and of their mirror images; may be mapped files.

    flipped: None without a second pass. concat: join the passes side by side instead of adding them.
    """

    original: np.ndarray
    flipped: np.ndarray | None = None
    concat: bool = False

    @property
    def fused(self) -> np.ndarray:
        """float32 (N, D or 2 D), un-normalised."""
        if self.flipped is None:
            return self.original
        if self.concat:
            return np.concatenate([self.original, self.flipped], axis=1)
        return np.asarray(self.original + self.flipped)

    @property
    def norms(self) -> np.ndarray:
        """float (N,): the mean length of each image's embeddings, which tells quality for MagFace and AdaFace."""
        passes = [self.original] if self.flipped is None else [self.original, self.flipped]
        return np.asarray(np.mean([np.linalg.norm(part, axis=1) for part in passes], axis=0))

    @property
    def xnorm(self) -> float:
        """InsightFace's XNorm: the mean length over all images and both passes, before they are joined."""
        return float(np.mean(self.norms, dtype=np.float64))


def both_passes(
    model: Embedder, chunks: Iterable[np.ndarray], flip: bool
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Embeddings of each chunk of images and of its mirror images; the latter None where nobody joins them."""
    for chunk in chunks:
        (original,) = model.raw([chunk], flip=False)
        flipped = None
        if flip and model.preprocessing.flip != "none":
            (flipped,) = model.raw([np.ascontiguousarray(chunk[:, :, ::-1])], flip=False)
        yield original, flipped


def embed_images(model: Embedder, images: Images, flip: bool = True, progress: Progress | None = None) -> Embeddings:
    """Everything in memory; `store.embed_to_disk` is for large sets."""
    parts: list[tuple[np.ndarray, np.ndarray | None]] = []
    done = 0
    for part in both_passes(model, images.chunks(model.preprocessing.size), flip):
        parts.append(part)
        done += len(part[0])
        if progress:
            progress(done, len(images))
    original = np.concatenate([part[0] for part in parts])
    mirrored = [part[1] for part in parts if part[1] is not None]
    return Embeddings(original, np.concatenate(mirrored) if mirrored else None, model.preprocessing.flip == "concat")


class EmbeddingsFile:
    """Somebody's embeddings in an npz: `embeddings` (N, D); optional `flipped` (N, D), `norms` (N,), `keys` (N,).

    `norms` gives rows of length 1 their length back, as `marginface embed` writes them. With `keys`, rows are found
    by the names of the benchmark's images, with or without suffix; without, they must lie in the benchmark's order.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in ("embeddings", "flipped", "norms", "keys") if name in file}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not an npz of arrays ({error}); write one with `marginface embed`") from error
        if "embeddings" not in arrays or arrays["embeddings"].ndim != 2:
            raise InputError(
                f"{path} must hold 'embeddings' of shape (N, D); it holds {', '.join(arrays) or 'neither'}"
            )
        self.original = arrays["embeddings"].astype(np.float32)
        self.flipped = arrays["flipped"].astype(np.float32) if "flipped" in arrays else None
        for name, array in arrays.items():
            if len(array) != len(self.original):
                raise InputError(f"{path}: {len(self.original)} embeddings, but {len(array)} {name}; give one each")
        if "norms" in arrays and self.flipped is None:
            self.original = self.original * arrays["norms"].astype(np.float32)[:, None]
        self.rows = _rows_by_key(self.path, arrays["keys"]) if "keys" in arrays else None

    def of(self, images: Images) -> Embeddings:
        """Those of a benchmark. Raises InputError naming and counting images without an embedding."""
        if self.rows is None:
            if len(self.original) != len(images):
                raise InputError(
                    f"{self.path} holds {len(self.original)} embeddings, {images.name} has {len(images)} images; give "
                    f"one an image in the benchmark's order, or 'keys' with the images' names"
                )
            return Embeddings(self.original, self.flipped)
        found = [self.rows.get(_stem(key)) for key in images.keys]
        if missing := [key for key, row in zip(images.keys, found, strict=True) if row is None]:
            raise InputError(
                f"{self.path} has no embedding for {len(missing)} of the {len(images)} images of {images.name} "
                f"(first: {missing[0]})"
            )
        rows = np.array(found, np.int64)
        return Embeddings(self.original[rows], None if self.flipped is None else self.flipped[rows])


def _rows_by_key(path: Path, keys: Sequence[str]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        if rows.setdefault(_stem(str(key)), row) != row:
            doubles = len(keys) - len({_stem(str(one)) for one in keys})
            raise InputError(f"{path} names {doubles} images twice (first: {key}); keep one embedding an image")
    return rows


def _stem(key: str) -> str:
    return str(PurePosixPath(key.replace("\\", "/")).with_suffix(""))
