"""The one walk through a folder of images. For every reader, benchmark and verb that takes one."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from marginface.errors import InputError
from marginface.readers.base import Reader
from marginface.readers.containment import Bounds
from marginface.untrusted import read_start

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pnm")
UNSURE = frozenset({".tif", ".tiff", ".gif", ".avif", ".jp2", ".heic", ".img", ".image"})
SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,6}~?")
"""What else ends in a suffix is no image. `George_W._Bush_0001` has none: like those of UNSURE, its bytes are asked."""
BEGINNING = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|BM....\0\0\0\0|RIFF....WEBP|P[56]\s", re.DOTALL)
BEGINNING_BYTES = 12
OF_NOBODY = "in no folder of a person"
MOST_KINDS = 8  # that a sentence names
LEFT_BY_SYSTEMS = frozenset({"__MACOSX", "@eaDir"})  # of macOS in archives, of network storage


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a data set, such as `.ipynb_checkpoints` or `._0.png`."""
    return name.startswith(".") or name in LEFT_BY_SYSTEMS


def find_files(folder: Path, *patterns: str) -> list[Path]:
    """What `folder` holds that is not hidden, by `glob` patterns, sorted."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if not any(map(is_hidden, path.relative_to(folder).parts)))


def data_files(folder: Path, *patterns: str) -> list[Path]:
    """The files among `find_files`. Raises InputError for an empty one: what it held would be missing silently."""
    files = [path for path in find_files(folder, *patterns) if path.is_file()]
    for file in files:
        check_not_empty(file)
    return files


def check_not_empty(file: Path) -> None:
    """Raises InputError for a file of 0 bytes."""
    if file.is_file() and file.stat().st_size == 0:
        raise InputError(f"{file}: is empty (0 bytes); copy or fetch it again.")


def images_of_people(folder: str | os.PathLike[str], bounds: Bounds) -> dict[str, list[str]]:
    """The images of each subfolder of `folder` that holds some, in the order of `walk_images`: paths below `folder`."""
    people: dict[str, list[str]] = {}
    for image in walk_images(folder, bounds):
        person, slash, _ = image.partition("/")
        if slash:
            people.setdefault(person, []).append(image)
    return people


def walk_images(folder: str | os.PathLike[str], bounds: Bounds, left_out: Counter[str] | None = None) -> Iterator[str]:
    """Paths below `folder` of its images: those in a folder sorted, then those in its subfolders, sorted.

    Images are known by their suffix, those without one and of UNSURE by their first bytes. left_out: counts the other
    files by suffix; hidden files and folders are neither. Symbolic links are followed. Raises InputError for one that
    leads out of the bounds, and for a folder that is met a second time, so that links in a circle end and nobody counts
    twice.
    """
    root = os.fspath(folder)
    others: Counter[str] = Counter() if left_out is None else left_out
    waiting = [("", os.path.realpath(root))]
    seen = {waiting[0][1]}
    while waiting:
        inside, real = waiting.pop()
        images, folders = [], []
        with os.scandir(f"{root}/{inside}") as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                is_folder, is_link = entry.is_dir(), entry.is_symlink()
                suffix, possible = kind_of(entry.name)
                if is_link and (is_folder or possible is not False):
                    bounds.check(f"{root}/{inside}{entry.name}")
                if is_folder:
                    folders.append((entry.name, is_link))
                elif possible is not False and _is_image(entry, possible):
                    images.append(entry.name)
                else:
                    others[suffix] += 1
        yield from (f"{inside}{name}" for name in sorted(images))
        for name, is_link in sorted(folders, reverse=True):
            place = os.path.realpath(f"{root}/{inside}{name}") if is_link else os.path.join(real, name)
            if place in seen:
                raise InputError(f"{root}/{inside}{name}: is {place}, which lies in the set already; remove the link.")
            seen.add(place)
            waiting.append((f"{inside}{name}/", place))


def kind_of(name: str) -> tuple[str, bool | None]:
    """(suffix, "" for none; whether the file is an image, None where only its first bytes tell)."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix, True
    if suffix in UNSURE:
        return suffix, None
    return (suffix, False) if SUFFIX.fullmatch(suffix) else ("", None)


def begins_as_image(start: bytes) -> bool:
    """Whether a file of these first BEGINNING_BYTES is of a format that is decoded."""
    return BEGINNING.match(start) is not None


def _is_image(entry: "os.DirEntry[str]", known: bool | None) -> bool:
    if known:  # a broken link is named when it is read
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry))
    return entry.is_file() and begins_as_image(read_start(entry, BEGINNING_BYTES))


def describe_left_out(path: str | os.PathLike[str], reader: Reader) -> str:
    """The sentence on files of a folder that `reader` does not take; "" where there are none, and for other formats."""
    left_out, taken = getattr(reader, "left_out", {}), len(reader)
    if not left_out:
        return ""
    count = sum(left_out.values())
    return (
        f"{path}: {count:,} of {count + taken:,} files are not taken ({list_kinds(left_out)}); images are JPEG, PNG,"
        f" BMP, WebP or PNM, in a folder for each person."
    )


def list_kinds(left_out: Mapping[str, int]) -> str:
    """Such as "12 .tif, 3 without a suffix", the most frequent first."""
    kinds = sorted(left_out.items(), key=lambda kind: (-kind[1], kind[0]))
    named = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in kinds[:MOST_KINDS]]
    return ", ".join([*named, *(["..."] if len(kinds) > MOST_KINDS else [])])
