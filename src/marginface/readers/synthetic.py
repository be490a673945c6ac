"""Procedural faces as a data set, so that everything can be tried without photographs: quickstart, tests, demos.

A person is a vector of traits drawn from (seed, identity), a photograph varies pose, expression, light and so on by
(seed, identity, image). `synthetic_traits` draws the traits, `synthetic_render` the pictures.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.filenames import leads_out
from marginface.files import create_folder
from marginface.readers.base import Reader, Record
from marginface.readers.synthetic_render import render
from marginface.readers.synthetic_traits import draw

_TOGETHER = 64  # photographs rendered together: enough to forget what a call costs, and they stay in the cache

# A large block, given back, tells glibc to keep freed memory for reuse instead of returning it to the system at once;
# without this a third of the rendering time goes into page faults. Elsewhere it does nothing.
np.empty(31 << 20, np.uint8)


class SyntheticFaces:
    """Reader of procedural faces: `identities` × `images_per_identity` records, ordered by identity.

    Deterministic: image (seed, identity, number) has the same bytes whatever is read with it, and people are numbered
    from `first_identity`, so that ranges that do not overlap hold different people (those of training, and unseen
    ones). Records carry RGB uint8 (size, size, 3), roughly aligned, and the true five points; the key is
    "id00012/0003". Raises InputError for a count below one, a size outside 32 to 512, or an index out of range.
    """

    def __init__(
        self, identities: int, images_per_identity: int, seed: int = 0, first_identity: int = 0, size: int = 112
    ) -> None:
        if identities < 1 or images_per_identity < 1:
            raise InputError(
                f"Synthetic faces need at least 1 of identities and images_per_identity, not {identities} and"
                f" {images_per_identity}."
            )
        if seed < 0 or first_identity < 0:
            raise InputError(f"Synthetic faces need seed and first_identity from 0 on, not {seed}, {first_identity}.")
        if not 32 <= size <= 512:
            raise InputError(f"Synthetic faces are drawn 32 to 512 pixels wide, not {size}.")
        self.images_per_identity = images_per_identity
        self.seed, self.first_identity, self.size = seed, first_identity, size
        self.num_classes = identities
        self.labels = np.repeat(np.arange(identities), images_per_identity)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[Record]:
        """The records at `indices`, in that order.

        In one thread: two would wait for each other between the many short array operations, and lose by it. Who needs
        more reads in processes, as the loader does.
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        for index in chosen[(chosen < 0) | (chosen >= len(self))]:
            raise InputError(f"Synthetic faces have no record {index}: they are numbered 0 to {len(self) - 1}.")
        parts = (chosen[start : start + _TOGETHER] for start in range(0, len(chosen), _TOGETHER))
        return [record for part in parts for record in self._render(part)]

    def _render(self, indices: np.ndarray) -> list[Record]:
        labels, numbers = np.divmod(indices, self.images_per_identity)
        people = labels + self.first_identity
        images, points = render(draw(self.seed, people, numbers), self.size)
        return [
            Record(image, int(label), f"id{person:05d}/{number:04d}", five)
            for image, label, person, number, five in zip(images, labels, people, numbers, points, strict=True)
        ]


def write_folder(reader: Reader, path: str | os.PathLike[str], suffix: str = ".png", quality: int = 95) -> None:
    """Writes a set whose records hold arrays as an image folder, `path`/<identity>/<image><suffix>, from their keys.

    suffix: ".png" (lossless) or ".jpg" (at `quality`, 1 to 100). Raises InputError where records are not arrays, or the
    suffix is neither. The folder appears once it is whole; one that exists and is not
    empty is refused too.
    """
    if suffix not in (".png", ".jpg"):
        raise InputError(f"Image folders are written as .png or .jpg, not {suffix!r}.")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    with create_folder(path) as folder:
        for start in range(0, len(reader), 256):
            for record in reader.read(range(start, min(start + 256, len(reader)))):
                if leads_out(record.key):
                    raise InputError(f"Record {record.key!r:.80} cannot be written: its name leads out of the folder.")
                _write(record, folder / f"{record.key}{suffix}", options)


def _write(record: Record, path: Path, options: list[int]) -> None:
    if isinstance(record.image, bytes):
        raise InputError(f"Record {record.key} is stored encoded: copy its set, or decode it before writing a folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    done, encoded = cv2.imencode(path.suffix, cv2.cvtColor(record.image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise InputError(f"Record {record.key} cannot be encoded as {path.suffix}: its shape is {record.image.shape}.")
    path.write_bytes(encoded.tobytes())
