"""Embeddings of large benchmarks on disk: written as they come, so that an interrupted evaluation goes on exactly.

A folder of its own for each (network, benchmark, way of looking): `original.f32` and `flipped.f32`, raw float32
(N, D), and `progress.json`, which says how many rows are done and of what.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marginface.embedder import Embedder
from marginface.evaluate.embeddings import Embeddings, Progress, both_passes
from marginface.evaluate.images import Images
from marginface.files import replace_file

MARK = "progress.json"
SECONDS = 5.0
"""Between two marks: what an interruption costs at most."""


def scratch_folder() -> Path:
    """Where embeddings lie while an evaluation runs, unless told otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marginface" / "embeddings"


def identity(model: Embedder, images: Images, flip: bool, way: str) -> str:
    """SHA-256 of all that decides the embeddings but the files' content: weights, preprocessing, names, order.

    way: how the images are looked at, such as the name of a degradation and where they lie.
    """
    digest = hashlib.sha256(repr((model.config, model.preprocessing, flip, way, images.resize)).encode())
    for name, value in model.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().numpy().tobytes())
    digest.update("\n".join(images.keys).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def embed_to_disk(
    model: Embedder,
    images: Images,
    scratch: Path,
    *,
    flip: bool = True,
    way: str = "",
    progress: Progress | None = None,
) -> tuple[Embeddings, Path]:
    """As `embed_images`, in a folder of `scratch`; goes on where an earlier call with the same network stopped.

    Also returns that folder, to be removed when the embeddings are no longer needed.

    Rows are written before the mark that counts them, and chunks begin at the same places: the result is the same to
    the last bit. What `progress` raises ends the call with everything marked that was done.
    """
    flip = flip and model.preprocessing.flip != "none"
    names, shape = ["original.f32", "flipped.f32"][: 1 + flip], (len(images), model.config.num_features)
    folder = scratch / identity(model, images, flip, way)[:24]
    folder.mkdir(parents=True, exist_ok=True)
    done = _done(folder, names, shape)
    arrays = [np.memmap(folder / name, np.float32, "r+" if done else "w+", shape=shape) for name in names]
    marked = time.monotonic()
    chunks = images.chunks(model.preprocessing.size, done)
    try:
        for passes in both_passes(model, chunks, flip):
            for array, part in zip(arrays, passes, strict=False):
                array[done : done + len(passes[0])] = part
            done += len(passes[0])
            if time.monotonic() - marked > SECONDS:
                _mark(folder, arrays, done)
                marked = time.monotonic()
            if progress:
                progress(done, len(images))
    finally:
        _mark(folder, arrays, done)
    return Embeddings(arrays[0], arrays[1] if flip else None, model.preprocessing.flip == "concat"), folder


def _done(folder: Path, names: Sequence[str], shape: tuple[int, int]) -> int:
    """Rows that an earlier call left; 0 where there are none, or its files are not whole."""
    try:
        done = json.loads((folder / MARK).read_text(encoding="utf-8"))["done"]
        whole = all((folder / name).stat().st_size == 4 * shape[0] * shape[1] for name in names)
        return int(done) if whole and 0 <= done <= shape[0] else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _mark(folder: Path, arrays: Sequence[np.memmap], done: int) -> None:
    for array in arrays:
        array.flush()
    with replace_file(folder / MARK) as temporary:
        temporary.write_text(json.dumps({"done": done}) + "\n", encoding="utf-8")
