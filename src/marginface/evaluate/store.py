"""Embeddings of large benchmarks on disk: written as they come, so that an interrupted evaluation goes on exactly.

A folder of its own for each (network, benchmark, way of looking): `original.f32` and `flipped.f32`, raw float32
(N, D), and `done`, a byte for each chunk of images, 1 when its rows are on disk. Any number of processes fill it
together, each its share of the chunks, and any other number may go on.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate.embeddings import Embeddings, Progress, both_passes
from marginface.evaluate.images import Images
from marginface.files import naming
from marginface.processes import by_first, rank_and_size, together

DONE = "done"
SECONDS = 5.0
"""Between two marks: what an interruption costs at most."""


def scratch_folder() -> Path:
    """Where embeddings lie while an evaluation runs, unless told otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marginface" / "embeddings"


def identity(model: Embedder, images: Images, flip: bool, way: str) -> str:
    """SHA-256 of all that decides the embeddings but the files' content: weights, preprocessing, names, order.

    way: how the images are looked at, such as the name of a degradation and where they lie.
    """
    crop = images.align and images.align.__qualname__
    digest = hashlib.sha256(repr((model.config, model.preprocessing, flip, way, images.resize, crop)).encode())
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

    Also returns that folder, to be removed when the embeddings are no longer needed. All processes of a run must call
    this, with a `scratch` that all of them see.

    Rows are written before the mark that counts them, and chunks begin at the same places: the result is the same to
    the last bit. What `progress` raises ends the call with everything marked that was done.
    """
    flip = flip and model.preprocessing.flip != "none"
    names, shape = ["original.f32", "flipped.f32"][: 1 + flip], (len(images), model.config.num_features)
    folder = scratch / identity(model, images, flip, way)[:24]
    missing = by_first(lambda: _missing(folder, names, shape, len(images.parts)))
    together(lambda: _fill(model, images, folder, names, missing, progress))
    arrays = [np.memmap(folder / name, np.float32, "r", shape=shape) for name in names]
    return Embeddings(arrays[0], arrays[1] if flip else None, model.preprocessing.flip == "concat"), folder


def forget_embeddings(folder: Path) -> None:
    """Remove what `embed_to_disk` left in `folder`, and `folder` if nothing else is in it."""
    for name in (DONE, "original.f32", "flipped.f32"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _missing(folder: Path, names: Sequence[str], shape: tuple[int, int], chunks: int) -> list[int]:
    """Numbers of the chunks that no earlier call left; all of them, in new files, where its files are not whole."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 4 * shape[0] * shape[1]
    try:
        done = (folder / DONE).read_bytes()
        whole = len(done) == chunks and all((folder / name).stat().st_size == size for name in names)
    except OSError:
        whole = False
    if not whole:
        done = bytes(chunks)
        with naming(folder):
            (folder / DONE).write_bytes(done)  # first, so that new files are never taken for full ones
            for name in names:
                with (folder / name).open("wb") as file:
                    file.truncate(size)
    return [number for number, mark in enumerate(done) if mark != 1]


def _fill(
    model: Embedder, images: Images, folder: Path, names: Sequence[str], missing: list[int], progress: Progress | None
) -> None:
    """The share of this process. Plain writes, not mapped pages: several machines may write to one file."""
    rank, size = rank_and_size()
    if not (folder / DONE).is_file():
        raise InputError(f"{folder} is not seen by all processes: give --scratch, a folder that they share")
    parts, mine = images.parts, missing[rank::size]
    before, made = len(images) - sum(len(parts[number]) for number in missing), 0
    with naming(folder), ExitStack() as held:
        *files, done = [held.enter_context((folder / name).open("r+b")) for name in (*names, DONE)]
        marks = _Marks(files, done)
        held.callback(marks.write)
        chosen = [parts[number] for number in mine]
        chunks = images.chunks(model.preprocessing.size, chosen, model.preprocessing.template)
        for number, passes in zip(mine, both_passes(model, chunks, len(names) > 1), strict=True):
            for file, rows in zip(files, [rows for rows in passes if rows is not None], strict=True):
                file.seek(parts[number].start * rows[:1].nbytes)
                file.write(rows.tobytes())
            marks.add(number)
            made += len(passes[0])
            if progress:
                progress(min(before + size * made, len(images)), len(images))


class _Marks:
    """Counts chunks as done, a few at a time, when their rows are on disk."""

    def __init__(self, files: Sequence[BinaryIO], done: BinaryIO) -> None:
        self._files, self._done, self._waiting, self._since = files, done, list[int](), time.monotonic()

    def add(self, number: int) -> None:
        self._waiting.append(number)
        if time.monotonic() - self._since > SECONDS:
            self.write()

    def write(self) -> None:
        for file in self._files:
            _keep(file)
        for number in self._waiting:
            self._done.seek(number)
            self._done.write(b"\1")
        _keep(self._done)
        self._waiting, self._since = [], time.monotonic()


def _keep(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
