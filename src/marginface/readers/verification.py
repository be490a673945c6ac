"""Verification sets of every stored layout as one kind of thing; LFW's pairs.txt is `protocols.pairs`."""

import os
from collections.abc import Callable
from pathlib import Path

from marginface.errors import InputError
from marginface.readers.base import VerificationSet
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import check_not_empty
from marginface.readers.verification_arrays import is_arrays, is_memfile, read_arrays, read_memfile
from marginface.readers.verification_bin import is_bin, read_bin
from marginface.readers.verification_list import is_pair_list, read_pair_list
from marginface.readers.verification_table import is_verification_table, read_table

__all__ = ["VerificationSet", "is_verification", "open_verification"]


def open_verification(path: str | os.PathLike[str], allow_outside: bool = False) -> VerificationSet:
    """The verification set at `path`, recognised by its content. It is read from its own folder, as `open_reader` does.

    A `.bin` of InsightFace, also packed as `.xz`; AdaFace's `mem_file.dat` or the folder above it; a folder with
    `issame.txt` and an `.npy` of images; a folder saved by `datasets` with a column is_same, as CVLface has it; a text
    list of pairs, as `verification_list` describes them.

    Raises InputError if nothing lies there, nobody understands it, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    check_not_empty(path)
    for recognises, read in READERS:
        if recognises(path):
            return read(path, Bounds(path, allow_outside=allow_outside))
    raise InputError(
        f"{path}: not a verification set; give a .bin or .xz file of InsightFace's kind, a mem_file.dat of AdaFace,"
        f" a folder with issame.txt and the images in an .npy file, one of CVLface with a column is_same, or a list"
        f" of pairs with two images and 0 or 1 a line."
    )


def is_verification(path: Path) -> bool:
    """Whether `open_verification` would try to read what lies at `path`."""
    return any(recognises(path) for recognises, _ in READERS)


READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path, Bounds], VerificationSet]], ...] = (
    (is_bin, lambda path, _: read_bin(path)),
    (is_memfile, read_memfile),
    (is_arrays, read_arrays),
    (is_verification_table, read_table),
    (is_pair_list, read_pair_list),
)
