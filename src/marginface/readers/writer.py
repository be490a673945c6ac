"""What every writer of a data set is, and what they share. The writers beside it are called by `convert`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from marginface.readers.base import Record

SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PN": ".png", b"BM": ".bmp", b"RIFF": ".webp", b"P5": ".pgm", b"P6": ".ppm"}


@dataclass(frozen=True)
class Contents:
    """What will be written: labels, int64 ascending (N,); num_classes; the identities' names where there are any."""

    labels: np.ndarray
    num_classes: int
    class_names: Sequence[str] | None

    def identity(self, label: int) -> str:
        """The name of an identity if it has one, else its number with leading zeros, so that order is kept."""
        return self.class_names[label] if self.class_names is not None else f"{label:07d}"


class Writer(Protocol):
    """Writes records in ascending order of label into a folder of its own; can go on where it was interrupted.

    It is made as `Writer(folder, contents, state)`, with the last `state()` of an interrupted one, or {}.
    """

    def write(self, records: Sequence[Record]) -> None: ...

    def state(self) -> dict[str, int]:
        """What is safely on disk, to go on from: "done" records, and the writer's own numbers."""
        ...

    def finish(self) -> None:
        """Writes what comes last; the folder is then complete."""
        ...


def encoded(record: Record) -> bytes:
    """The bytes of the image as they are; pixels that were never encoded become a PNG, which loses nothing."""
    if isinstance(record.image, bytes):
        return record.image
    return cv2.imencode(".png", cv2.cvtColor(record.image, cv2.COLOR_RGB2BGR))[1].tobytes()


def suffix_of(image: bytes) -> str:
    """The usual suffix of an encoded image; a damaged one gets .jpg, so that whoever decodes it names it."""
    return next((suffix for magic, suffix in SUFFIXES.items() if image.startswith(magic)), ".jpg")
