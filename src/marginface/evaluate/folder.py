"""A folder of aligned faces to a file of embeddings. Called by `marginface embed`."""

from pathlib import Path

import numpy as np

from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate.images import Images
from marginface.files import replace_file
from marginface.readers.folder import IMAGE_SUFFIXES


def embed_folder(
    model: Embedder, folder: str | Path, output: str | Path, flip: bool = True, resize: bool = False
) -> int:
    """Embeds every image below `folder`; returns how many.

    Writes an npz of `embeddings` float32 (N, D), L2-normalised, `norms` float32 (N,) before normalising, and
    `keys` (N,), paths relative to `folder`, sorted. Raises InputError naming the images that cannot be read.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}); give the folder of aligned faces")
    keys = [str(path.relative_to(folder)) for path in paths]
    images = Images.of_files(str(folder), keys, paths, resize)
    embeddings = np.concatenate(list(model.raw(images.chunks(model.preprocessing.size), flip)))
    norms = np.linalg.norm(embeddings, axis=1)
    unit = embeddings / np.maximum(norms, 1e-12)[:, None]
    with replace_file(output) as temporary, temporary.open("wb") as file:
        np.savez(file, embeddings=unit, norms=norms, keys=np.array(keys))
    return len(keys)
