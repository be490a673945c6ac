"""The images of a benchmark as the network takes them: read, aligned, degraded, checked, a few at a time."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.loading.alignment import Alignment
from marginface.loading.decode import decode, decode_batch
from marginface.protocols.degrade import Degrade
from marginface.readers import open_reader
from marginface.readers.base import Reader, Record
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import walk_images
from marginface.untrusted import LARGEST_IMAGE, read_bytes

CHUNK = 64
PICTURE = 112

Align = Callable[[np.ndarray, np.ndarray, int, str], np.ndarray]
"""RGB uint8 (H, W, 3), its five points (5, 2), a side and the model's template -> RGB uint8 (side, side, 3)."""


@dataclass(frozen=True)
class Images:
    """All images of a benchmark, in the order its protocol wants.

    keys: name of each. read: records at some positions. resize: scale faces of another size.
    align: makes a face of a picture with points; None where the images are faces already.
    degrade: what `--degrade` asks for, done to the aligned face. paths: of images that are files.
    alignment: of faces that were aligned before, where that is known.
    """

    name: str
    keys: Sequence[str]
    read: Callable[[Sequence[int]], list[Record]]
    resize: bool = False
    align: Align | None = None
    degrade: Degrade | None = None
    paths: Sequence[Path] = ()
    alignment: Alignment | None = None

    @classmethod
    def of_files(
        cls,
        name: str,
        keys: Sequence[str],
        paths: Sequence[Path],
        resize: bool = False,
        points: np.ndarray | None = None,
        align: Align | None = None,
        alignment: Alignment | None = None,
    ) -> "Images":
        """Of files; points: float (N, 5, 2), pixels."""

        def record(i: int) -> Record:
            return Record(read_bytes(paths[i], LARGEST_IMAGE), 0, str(paths[i]), None if points is None else points[i])

        return cls(
            name,
            keys,
            lambda positions: [record(i) for i in positions],
            resize,
            align,
            paths=paths,
            alignment=alignment,
        )

    @classmethod
    def of_reader(
        cls,
        name: str,
        reader: Reader,
        rows: Sequence[int],
        resize: bool = False,
        alignment: Alignment | None = None,
    ) -> "Images":
        """Of some rows of a set in any format. Their keys are read with them once."""
        parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        keys = [record.key for part in parts for record in reader.read(part)]
        return cls(name, keys, lambda positions: reader.read([rows[i] for i in positions]), resize, alignment=alignment)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def parts(self) -> list[range]:
        """The positions of each chunk, CHUNK at most."""
        return [range(low, min(low + CHUNK, len(self))) for low in range(0, len(self), CHUNK)]

    def chunks(
        self, side: int, parts: Sequence[range] | None = None, template: str = "arcface"
    ) -> Iterator[np.ndarray]:
        """RGB uint8 (n, side, side, 3) of these parts, or of all, the next read meanwhile.

        template: to which photographs with points are aligned.
        Raises InputError naming the images that cannot be read: a benchmark without them is another one.
        """
        parts = self.parts if parts is None else parts
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(self.take, part, side, template) for part in parts[:1]]
            for number in range(len(parts)):
                chunk = waiting.pop().result()
                waiting += [pool.submit(self.take, part, side, template) for part in parts[number + 1 : number + 2]]
                yield chunk

    def take(self, positions: Sequence[int], size: int, template: str = "arcface", threads: int = 2) -> np.ndarray:
        """The images at these positions, as in `chunks`."""
        records = self.read(positions)
        if self.align is None:
            images, failures = decode_batch(records, size, self.resize, threads=threads)
        else:
            images, failures = _aligned(records, self.align, size, template)
        if failures:
            raise InputError(
                f"{self.name}: {len(failures)} of its images cannot be read, repair or remove them and their pairs: "
                + " ".join(list(failures.values())[:3])
            )
        if self.degrade is not None:
            for image in images:
                image[:] = self.degrade(image)
        return images

    def probe(self, side: int, parts: Sequence[range]) -> None:
        """Decode the images of these parts. Raises InputError as `chunks` does."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                for _ in pool.map(lambda part: len(self.take(part, side, threads=1)), parts):
                    pass
            finally:
                pool.shutdown(cancel_futures=True)

    def picture(self, position: int) -> np.ndarray:
        """One image for people to look at: RGB uint8 (H, W, 3), aligned where the network sees it aligned."""
        if self.align is not None:
            return np.asarray(self.take([position], PICTURE)[0])
        return decode(self.read([position])[0])

    def check(self) -> None:
        """Raises InputError naming and counting files that are not there: better now than after hours."""
        folders = {path.parent for path in self.paths}
        present = {folder: {entry.name for entry in os.scandir(folder)} for folder in folders if folder.is_dir()}
        if missing := [path for path in self.paths if path.name not in present.get(path.parent, ())]:
            raise InputError(
                f"{self.name}: {len(missing)} of its {len(self)} images are not there (first: {missing[0]}); add them"
            )

    def checksum(self) -> str:
        """SHA-256 over the stored images: two reports with the same one speak of the same data."""
        digest = hashlib.sha256()
        for start in range(0, len(self), CHUNK):
            for record in self.read(range(start, min(start + CHUNK, len(self)))):
                digest.update(record.image if isinstance(record.image, bytes) else record.image.tobytes())
        return digest.hexdigest()


def open_set(path: Path, allow_outside: bool = False) -> Reader | None:
    """The reader of a set that is no folder of images, such as `convert` writes; None for a folder of images."""
    if path.is_dir() and next(walk_images(path, Bounds(path, allow_outside=allow_outside)), None) is not None:
        return None
    return open_reader(path, allow_outside)


def _aligned(records: Sequence[Record], align: Align, size: int, template: str) -> tuple[np.ndarray, dict[int, str]]:
    """As `decode_batch`, for pictures that are aligned on the fly."""
    images = np.zeros((len(records), size, size, 3), np.uint8)

    def fill(position: int) -> str | None:
        record = records[position]
        if record.points is None:
            return f"{record.key}: it has no points."
        try:
            images[position] = align(decode(record), record.points, size, template)
        except ValueError as error:  # InputError is one
            return str(error) if isinstance(error, InputError) else f"{record.key}: {error}."
        return None

    with ThreadPoolExecutor(2) as pool:
        reasons = list(pool.map(fill, range(len(records))))
    return images, {position: reason for position, reason in enumerate(reasons) if reason is not None}
