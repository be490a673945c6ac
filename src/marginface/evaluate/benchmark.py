"""What every kind of benchmark answers, and how its words on the command line are read. Used by the kinds."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from marginface.errors import InputError
from marginface.evaluate.embeddings import Embeddings
from marginface.evaluate.images import Images
from marginface.metrics.result import VerificationResult
from marginface.metrics.search_result import IdentificationResult
from marginface.readers.containment import Bounds, is_possible

Result = VerificationResult | IdentificationResult


class Benchmark(Protocol):
    """A protocol over real images."""

    @property
    def images(self) -> Images:
        """What to embed; `images.name` is the benchmark's name."""
        ...

    @property
    def name(self) -> str: ...

    def score(self, embeddings: Embeddings, model: str, replicates: int = 1000) -> list[Result]:
        """Every figure of the embeddings of `images`; `replicates` 0 leaves the confidence intervals out."""
        ...

    def picture(self, side: int) -> np.ndarray:
        """RGB uint8 (H, W, 3) of one side of a trial of the results, for people to look at."""
        ...

    def checksum(self) -> str:
        """SHA-256 of images and protocol: two reports with the same one speak of the same data."""
        ...


def split_path(rest: str, known: Sequence[str] = ()) -> list[str]:
    """`PATH,key=value,...` at its commas, apart from those in a path that exists and in values of `known` keys."""
    option = re.compile(rf",(?=(?:{'|'.join(known) or chr(0)})=)")
    commas = [place for place, letter in enumerate(rest) if letter == ","]
    for end in (len(rest), *reversed(commas)):
        if rest[:end] and is_possible(rest[:end]) and Path(rest[:end]).exists():
            first, *words = option.split(rest[end:])
            return [rest[:end], *words, *first.split(",")[1:]]
    return option.split(rest)


def split_words(rest: str, known: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """`PATH,key=value,...` apart. Raises InputError for keys that are not `known`, and when PATH does not exist."""
    path, *words = split_path(rest, known)
    options = dict(word.partition("=")[::2] for word in words)
    if unknown := [key for key in options if key not in known]:
        raise InputError(
            f"'{unknown[0]}' is no option of the benchmark {rest!r}; "
            + (f"it takes {', '.join(f'{key}=...' for key in known)}" if known else "it takes none")
        )
    if not path or not Path(path).exists():
        raise InputError(f"the benchmark's folder or file '{path}' does not exist; give where it lies")
    return Path(path), options


def beside(folder: Path, named: str | None, usual: str, allow_outside: bool = False) -> Path:
    """A file named on the command line, as it is or in `folder`; unnamed, the one that is usually in `folder`.

    Raises InputError where the usual one is a symbolic link out of `folder`, unless `allow_outside`.
    """
    if named:
        return Path(named) if Path(named).is_file() else folder / named
    Bounds(folder, allow_outside=allow_outside).check(folder / usual)
    return folder / usual
