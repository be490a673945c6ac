"""Photographs with five points -> a folder of aligned faces, one subfolder a person. Called by `marginface align`."""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from marginface.detection import Detector, most_central
from marginface.errors import InputError
from marginface.faces.fit import Fit, fit
from marginface.faces.template import crop_face, face_shape
from marginface.files import check_apart, create_file, replace_file
from marginface.loading.alignment import Alignment, read_alignment, write_alignment
from marginface.loading.decode import decode
from marginface.readers.base import Reader, Record
from marginface.readers.containment import is_possible
from marginface.readers.folder_writer import is_plain
from marginface.readers.image_size import image_size
from marginface.readers.image_walk import IMAGE_SUFFIXES
from marginface.untrusted import LARGEST_IMAGE, read_bytes, read_lines

FindPoints = Callable[[np.ndarray], np.ndarray | None]
"""RGB uint8 (H, W, 3) -> float (5, 2), x and y of the points of the face that is meant, or None."""
TILE, IN_A_ROW = 112, 12  # of the contact sheet


@dataclass
class Aligned:
    """What was done.

    written, kept: faces made now, and found from an earlier run. refused: key -> reason. fits: how well the points
    of each face fit the template, by the file's path below the folder.
    """

    written: int = 0
    kept: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    fits: dict[str, Fit] = field(default_factory=dict)


def read_names(path: str | Path) -> set[str]:
    """People, one a line; what follows a tab is ignored. Raises InputError when there are none."""
    try:
        names = {line.split("\t")[0].strip() for line in read_lines(path)} - {""}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a file with one person a line") from error
    if not names:
        raise InputError(f"{path} names nobody; give a file with one person a line")
    return names


def main_face(detector: Detector) -> FindPoints:
    """The points of the face that is large and near the middle, as `detection.most_central` chooses it.

    May be called from several threads; the detector then sees one image after the other.
    """
    lock = threading.Lock()

    def find(image: np.ndarray) -> np.ndarray | None:
        with lock:
            faces = detector(image)
        if not len(faces):
            return None
        points: np.ndarray = faces.points[most_central(faces, image.shape[0], image.shape[1])]
        return points

    return find


def align_faces(
    reader: Reader,
    folder: str | Path,
    size: int = 112,
    people: set[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    template: str = "arcface",
    detect: FindPoints | None = None,
) -> Aligned:
    """Writes folder/<key of the record>.png for every record, with the folder of its identity where the key has none.

    Those already there are kept, so it can be repeated.

    A note in the folder tells template and size to those who read it (see `loading.alignment`).

    size: height of a face in pixels. template: one of faces.template.TEMPLATES. people: only records whose folder has
    one of these names. progress: told how many of how many are done. detect: finds the points of records that come
    without; it is called from several threads, and not for faces that are kept.
    Records without points or that cannot be read are refused and counted; InputError when that is all of them,
    when `people` names someone who is not in the set, when the template has no such size, or when the folder holds
    faces aligned otherwise.
    """
    wanted, before = Alignment(template, int(size)), read_alignment(folder)
    if before not in (None, wanted):
        raise InputError(f"{folder} holds faces aligned to {before}, not to {wanted}; give another folder")
    if (source := getattr(reader, "path", None)) is not None:
        check_apart(folder, source)
    one = _Aligner(Path(folder), size, template, detect, getattr(reader, "class_names", None))
    done = Aligned()
    chosen = _chosen(reader, people)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(chosen), 256):
            records = reader.read(chosen[start : start + 256])
            for record, outcome in zip(records, pool.map(one.align, records), strict=True):
                if isinstance(outcome, str):
                    done.refused[record.key] = outcome
                    continue
                fitted, written = outcome
                done.written += written
                done.kept += not written
                if fitted is not None:
                    done.fits[one.face_name(record)] = fitted
            if before is None and done.written + done.kept:
                write_alignment(Path(folder), before := wanted)
            if progress:
                progress(min(start + 256, len(chosen)), len(chosen))
    if not done.written + done.kept:
        key, reason = next(iter(done.refused.items()))
        raise InputError(f"none of {len(chosen)} faces could be aligned; the first, {key}: {reason}")
    return done


def _chosen(reader: Reader, people: set[str] | None) -> list[int]:
    if people is None:
        return list(range(len(reader)))
    names = getattr(reader, "class_names", None)
    records = (record for start in range(0, len(reader), 256) for record in _headers(reader, start))
    person = [
        names[record.label] if names and "/" not in record.key else PurePosixPath(record.key).parent.name
        for record in records
    ]
    if missing := people - set(person):
        raise InputError(f"{len(missing)} of {len(people)} people are not in the set; the first: {min(missing)}")
    return [index for index, name in enumerate(person) if name in people]


def _headers(reader: Reader, start: int) -> list[Record]:
    return reader.read(range(start, min(start + 256, len(reader))))


@dataclass(frozen=True)
class _Aligner:
    folder: Path
    size: int
    template: str
    detect: FindPoints | None
    names: Sequence[str] | None

    def face_name(self, record: Record) -> str:
        """The path of a record's face below the folder; where its key has no folder, in that of its identity."""
        path = PurePosixPath(record.key)
        if "/" not in record.key:
            name = "" if self.names is None else self.names[record.label]
            path = PurePosixPath(name if is_plain(name) else f"{record.label:07d}", record.key)
        return str(path.with_suffix(".png") if path.suffix.lower() in IMAGE_SUFFIXES else f"{path}.png")

    def align(self, record: Record) -> tuple[Fit | None, bool] | str:
        """(how it fits if that is known, whether it was written now), or why it could not be."""
        try:
            target = self.folder / self.face_name(record)
            if not is_possible(str(target)):
                return "no file can have its name"
            if not target.resolve().is_relative_to(self.folder.resolve()):
                return "its name leads out of the folder"
            if target.is_file():
                if _size_of(target) != face_shape(self.size, self.template):
                    return f"{target} exists already and is no such face; move it away, or give another folder"
                return None if record.points is None else self._fit(record.points, _shape(record)), False
            picture = decode(record)
            points = record.points
            if points is None:
                if self.detect is None:
                    return "it has no points; find them with --detector auto"
                points = self.detect(picture)
                if points is None:
                    return "no face was found in it"
            face = crop_face(picture, points, self.size, self.template)
            fitted = self._fit(points, picture.shape)
        except ValueError as error:  # InputError is one
            return str(error)
        try:
            with replace_file(target, durable=False) as temporary:
                temporary.write_bytes(_png(face))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            return "another face has its name, or that of its folder"
        return fitted, True

    def _fit(self, points: np.ndarray, photograph: Sequence[int]) -> Fit:
        return fit(points, (photograph[0], photograph[1]), self.size, self.template)


def _shape(record: Record) -> Sequence[int]:
    return image_size(record.image) if isinstance(record.image, bytes) else record.image.shape


def _size_of(file: Path) -> tuple[int, int] | None:
    """Height and width of a PNG; None for anything else."""
    with file.open("rb") as stream, contextlib.suppress(ValueError):
        return image_size(stream.read(64))
    return None


def write_sheet(path: str | Path, folder: str | Path, done: Aligned, overwrite: bool = False) -> None:
    """Write a PNG to look at before anything is learned: the first faces, and those whose points are likely wrong.

    A row for each kind of suspicion, worst first; under a face its figure and its name. Raises InputError for
    a file that exists, unless `overwrite` is set.
    """
    order = {
        "the first": (list(done.fits), ""),
        "points least like the template, in % of the height": (_worst(done, "residual"), "{0.residual:.1%}"),
        "most of the face outside of the photograph": (_worst(done, "outside"), "{0.outside:.0%}"),
        "fewest pixels in the photograph; enlarged so many times": (_worst(done, "enlarged"), "x {0.enlarged:.2f}"),
    }
    rows = []
    for title, (keys, caption) in order.items():
        rows.append(_text(title, IN_A_ROW * TILE, 0.5))
        cells = [_tile(Path(folder) / key, caption.format(done.fits[key])) for key in keys[:IN_A_ROW]]
        if cells:
            rows.append(np.concatenate([*cells, *[np.full_like(cells[0], 255)] * (IN_A_ROW - len(cells))], axis=1))
    with create_file(path, overwrite) as temporary:
        temporary.write_bytes(_png(np.concatenate(rows)))


def _worst(done: Aligned, of: str) -> list[str]:
    found = [key for key in done.fits if getattr(done.fits[key], of) > 0]
    return sorted(found, key=lambda key: -getattr(done.fits[key], of))


def _tile(file: Path, caption: str) -> np.ndarray:
    """The picture at a height of TILE over two lines of text."""
    tile = np.full((TILE, TILE, 3), 255, np.uint8)
    with contextlib.suppress(OSError, InputError):
        picture = decode(Record(read_bytes(file, LARGEST_IMAGE), 0, str(file)))
        scale = (TILE - 4) / max(picture.shape[:2])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        tile[: small.shape[0], : small.shape[1]] = small
    return np.concatenate([tile, _text(caption, TILE, 0.35), _text(file.stem, TILE, 0.35)])


def _text(text: str, width: int, size: float) -> np.ndarray:
    line = np.full((int(44 * size), width, 3), 255, np.uint8)
    ascii_text = text.encode("ascii", "replace").decode()
    return cv2.putText(
        line, ascii_text, (2, int(30 * size)), cv2.FONT_HERSHEY_SIMPLEX, size, (40, 40, 40), 1, cv2.LINE_AA
    )


def _png(image: np.ndarray) -> bytes:
    """RGB uint8 (H, W, 3), quickly rather than small."""
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return np.asarray(data).tobytes()
