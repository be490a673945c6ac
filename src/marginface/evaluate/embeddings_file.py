"""Somebody's embeddings in an npz, of any library: for `evaluate --embeddings`."""

import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from marginface.errors import InputError
from marginface.evaluate.embeddings import Embeddings
from marginface.evaluate.images import Images
from marginface.readers.numpy_files import read_npz

SHAPES = {"embeddings": ("N", "D"), "flipped": ("N", "D"), "norms": ("N",), "keys": ("N",)}
"""Of the arrays of an embeddings file; only the first must be there."""


class EmbeddingsFile:
    """Somebody's embeddings in an npz: `embeddings` (N, D); optional `flipped` (N, D), `norms` (N,), `keys` (N,).

    `norms` gives rows of length 1 their length back, as `marginface embed` writes them. With `keys`, rows are found
    by the names of the benchmark's images, with or without suffix; without, they must lie in the benchmark's order.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        arrays = _read(self.path)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # too large for float32: infinite, and refused where they are used
            self.original = arrays["embeddings"].astype(np.float32)
            self.flipped = arrays["flipped"].astype(np.float32) if "flipped" in arrays else None
        if "norms" in arrays and self.flipped is None:
            self.original = self.original * arrays["norms"].astype(np.float32)[:, None]
        self.rows = _rows_by_key(self.path, arrays["keys"].tolist()) if "keys" in arrays else None

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


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of SHAPES that the file holds, of matching shapes, numbers and names where they belong."""
    try:
        arrays = read_npz(path, SHAPES)
        if "keys" in arrays and arrays["keys"].dtype.kind == "S":
            arrays["keys"] = np.char.decode(arrays["keys"], "utf-8")
        if "keys" in arrays and arrays["keys"].dtype.kind == "U":
            codes = np.frombuffer(arrays["keys"].astype(arrays["keys"].dtype.newbyteorder("=")).tobytes(), np.uint32)
            if codes.max(initial=0) > sys.maxunicode:  # numpy keeps what Python cannot
                raise ValueError("keys are not text")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not an npz of arrays ({error!s:.300}); write one with `marginface embed`"
        ) from error
    if "embeddings" not in arrays:
        raise InputError(f"{path} must hold 'embeddings' (N, D); it holds {', '.join(arrays) or 'no array known here'}")
    count = arrays["embeddings"].shape[:1]
    for name, array in arrays.items():
        kinds, kind = ("iuU", "names") if name == "keys" else ("iuf", "numbers")
        if array.ndim != len(SHAPES[name]) or array.dtype.kind not in kinds:
            shape = ", ".join(SHAPES[name])
            raise InputError(f"{path} must hold '{name}' ({shape}), {kind}; they are {array.dtype} {array.shape}")
        if array.shape[:1] != count:
            raise InputError(f"{path}: {count[0]} embeddings, but {len(array)} {name}; give one each")
    if "flipped" in arrays and arrays["flipped"].shape != arrays["embeddings"].shape:
        shapes = arrays["embeddings"].shape, arrays["flipped"].shape
        raise InputError(f"{path}: 'embeddings' are {shapes[0]}, 'flipped' {shapes[1]}; give both passes alike")
    return arrays


def _rows_by_key(path: Path, keys: Sequence[str]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        if rows.setdefault(_stem(str(key)), row) != row:
            doubles = len(keys) - len({_stem(str(one)) for one in keys})
            raise InputError(f"{path} names {doubles} images twice (first: {key}); keep one embedding an image")
    return rows


def _stem(key: str) -> str:
    path = PurePosixPath(key.replace("\\", "/"))
    return str(path.with_suffix("") if path.name else path)
