"""A folder of photographs and their five points to a folder of faces a network can learn from. For the CLI."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.faces.points_file import read_names, read_points
from marginface.faces.template import crop_face

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
JPEG_QUALITY = 98


@dataclass
class AlignReport:
    """What became of a folder: how many faces were written, and the names of the others.

    kept: already there from an earlier run. without_points: photographs that the landmark list does not know.
    unreadable: photographs that could not be decoded or whose points are no face's, with the reason.
    """

    written: int = 0
    kept: int = 0
    without_points: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.written:,} faces aligned"]
        if self.kept:
            parts.append(f"{self.kept:,} were there already")
        if self.without_points:
            parts.append(f"{len(self.without_points):,} have no points ({_some(self.without_points)})")
        if self.unreadable:
            parts.append(f"{len(self.unreadable):,} left out ({_some(list(self.unreadable.values()))})")
        return ", ".join(parts)


def align_folder(
    source: str | Path,
    landmarks: str | Path,
    target: str | Path,
    *,
    size: int = 112,
    names: str | Path | None = None,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> AlignReport:
    """Aligns the photographs `source/<Name>/<file>` into `target/<Name>/<file>` of the same name and format.

    landmarks: list of five points a photograph, see `read_points`. names: list of the people to take; all if None.
    progress: called with (done, total). Each file appears whole or not at all, and what is there is kept, so that a
    run that was stopped goes on where it was; another `size` needs another folder.

    Raises InputError if there is nothing to align, a listed person has no photograph, or `target` holds faces of
    another size.
    """
    source, target = Path(source), Path(target)
    points = read_points(landmarks)
    files = list(_photographs(source, read_names(names) if names is not None else None))
    report = AlignReport(without_points=[name for name in files if name not in points])
    todo = [name for name in files if name in points]
    if not todo:
        raise InputError(f"none of the {len(files)} photographs in {source} is named in {landmarks}")
    with ThreadPoolExecutor(threads, thread_name_prefix="align") as pool:
        outcomes = pool.map(lambda name: _align_file(source / name, points[name], target / name, size), todo)
        for done, (name, outcome) in enumerate(zip(todo, outcomes, strict=True), 1):
            _count(report, name, outcome)
            if progress is not None:
                progress(done, len(todo))
    return report


def _photographs(source: Path, people: set[str] | None) -> Iterator[str]:
    """Names below `source`, sorted, with forward slashes: `Name/Name_0001.jpg`."""
    if not source.is_dir():
        raise InputError(f"{source} is no folder; give the one with a subfolder of photographs for each person")
    folders = {path.name: path for path in source.iterdir() if path.is_dir()}
    missing = sorted((people or set()) - set(folders))
    if missing:
        raise InputError(f"{source} has no folder for {len(missing)} of the people listed: {_some(missing)}")
    for person in sorted(folders if people is None else people):
        for file in sorted(folders[person].iterdir()):
            if file.suffix.lower() in SUFFIXES:
                yield f"{person}/{file.name}"


def _align_file(photograph: Path, points: np.ndarray, target: Path, size: int) -> str:
    """Returns "written", "kept" or why not."""
    if target.exists() and _is_face(target, size):
        return "kept"
    image = cv2.imread(str(photograph), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        return f"{photograph} is damaged or no image"
    try:
        face = crop_face(image, points, size)  # any channel order does
    except ValueError as error:
        return f"{photograph}: {error}"
    done, data = cv2.imencode(target.suffix.lower(), face, _quality(target.suffix))
    if not done:
        return f"{target} cannot be encoded"
    _write(target, data.tobytes())
    return "written"


def _write(target: Path, data: bytes) -> None:
    """Not `files.replace_file`: waiting for the disk after each of many small files takes minutes, and what a power
    cut may spoil, `_is_face` finds and the next run makes again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _quality(suffix: str) -> list[int]:
    if suffix.lower() not in (".jpg", ".jpeg"):
        return []
    return [
        cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]  # fmt: skip


def _is_face(target: Path, size: int) -> bool:
    """Whether an earlier run finished this face."""
    there = cv2.imread(str(target))
    if there is not None and there.shape[:2] != (size, size):
        height, width = there.shape[:2]
        raise InputError(f"{target} is there with {width}x{height} pixels, not {size}x{size}; give another folder")
    return there is not None


def _count(report: AlignReport, name: str, outcome: str) -> None:
    if outcome == "written":
        report.written += 1
    elif outcome == "kept":
        report.kept += 1
    else:
        report.unreadable[name] = outcome


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
