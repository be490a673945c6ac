"""A folder of aligned faces to a file of embeddings. Called by `marginface embed`."""

from pathlib import Path

import numpy as np

from marginface.embedder import Embedder, check_embeddings
from marginface.evaluate.embeddings import Progress
from marginface.evaluate.images import Images, open_set
from marginface.files import check_file, create_file
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import walk_images


def embed_folder(
    model: Embedder,
    folder: str | Path,
    output: str | Path,
    flip: bool = True,
    resize: bool = False,
    progress: Progress | None = None,
    allow_outside: bool = False,
    overwrite: bool = False,
) -> int:
    """Embeds every image below `folder`, or of any other data set; returns how many.

    Goes the fastest way, as `Embedder.embed` does. Writes an npz of `embeddings` float32 (N, D), L2-normalised, `norms`
    float32 (N,) before normalising, and `keys` (N,), paths relative to `folder`, sorted; of other sets their keys in
    order. Raises InputError naming the images that cannot be read, for a symbolic link that leads out of `folder`,
    unless `allow_outside`, and for an `output` that exists, unless `overwrite`.
    """
    check_file(output, overwrite, within=[folder])
    folder = Path(folder)
    if reader := open_set(folder, allow_outside):
        images = Images.of_reader(str(folder), reader, range(len(reader)), resize)
        keys = list(images.keys)
    else:
        keys = sorted(walk_images(folder, Bounds(folder, allow_outside=allow_outside)))
        images = Images.of_files(str(folder), keys, [folder / key for key in keys], resize)
    parts: list[np.ndarray] = []
    for part in model.raw(images.chunks(model.preprocessing.size), flip, fast=len(keys)):
        parts.append(part)
        if progress:
            progress(sum(map(len, parts)), len(keys))
    embeddings = np.concatenate(parts)
    check_embeddings(embeddings)
    norms = np.linalg.norm(embeddings, axis=1)
    unit = embeddings / np.maximum(norms, 1e-12)[:, None]
    with create_file(output, overwrite, [folder]) as temporary, temporary.open("wb") as file:
        np.savez(file, embeddings=unit, norms=norms, keys=np.array(keys))
    return len(keys)
