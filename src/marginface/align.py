"""Photographs with five points -> a folder of aligned faces, one subfolder a person. Called by `marginface align`."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.faces.template import crop_face
from marginface.files import replace_file
from marginface.loading.decode import decode
from marginface.readers.base import Reader, Record


@dataclass
class Aligned:
    """What was done. written, kept: faces made now, and found from an earlier run. refused: key -> reason."""

    written: int = 0
    kept: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def read_names(path: str | Path) -> set[str]:
    """People, one a line; what follows a tab is ignored. Raises InputError when there are none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a file with one person a line") from error
    names = {line.split("\t")[0].strip() for line in lines} - {""}
    if not names:
        raise InputError(f"{path} names nobody; give a file with one person a line")
    return names


def align_faces(
    reader: Reader,
    folder: str | Path,
    size: int = 112,
    people: set[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Aligned:
    """Writes folder/<key of the record>.png for every record; those already there are kept, so it can be repeated.

    people: only records whose folder has one of these names. progress: told how many of how many are done.
    Records without points or that cannot be read are refused and counted; InputError when that is all of them,
    or when `people` names someone who is not in the set.
    """
    folder, done = Path(folder), Aligned()
    chosen = _chosen(reader, people)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(chosen), 256):
            records = reader.read(chosen[start : start + 256])
            for record, reason in zip(records, pool.map(lambda r: _align_one(r, folder, size), records), strict=True):
                if reason is None:
                    done.written += 1
                elif reason == "":
                    done.kept += 1
                else:
                    done.refused[record.key] = reason
            if progress:
                progress(min(start + 256, len(chosen)), len(chosen))
    if not done.written + done.kept:
        key, reason = next(iter(done.refused.items()))
        raise InputError(f"none of {len(chosen)} faces could be aligned; the first, {key}: {reason}")
    return done


def _chosen(reader: Reader, people: set[str] | None) -> list[int]:
    if people is None:
        return list(range(len(reader)))
    keys = [record.key for start in range(0, len(reader), 256) for record in _headers(reader, start)]
    person = [PurePosixPath(key).parent.name for key in keys]
    if missing := people - set(person):
        raise InputError(f"{len(missing)} of {len(people)} people are not in the set; the first: {min(missing)}")
    return [index for index, name in enumerate(person) if name in people]


def _headers(reader: Reader, start: int) -> list[Record]:
    return reader.read(range(start, min(start + 256, len(reader))))


def _align_one(record: Record, folder: Path, size: int) -> str | None:
    """None when written, "" when there already, else why not."""
    target = (folder / record.key).with_suffix(".png")
    if not target.resolve().is_relative_to(folder.resolve()):
        return "its name leads out of the folder"
    if target.is_file():
        return ""
    if record.points is None:
        return "it has no points"
    try:
        face = crop_face(decode(record), record.points, size)
    except ValueError as error:  # InputError is one
        return str(error)
    _, data = cv2.imencode(".png", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with replace_file(target, durable=False) as temporary:
        temporary.write_bytes(np.asarray(data).tobytes())
    return None
