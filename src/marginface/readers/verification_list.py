"""Text lists of verification pairs with their images in folders. Opened by `open_verification`.

is_same path1 path2      yakhyo's lfw_ann.txt and others, with a header line or without
path1 path2 is_same      InsightFace's pairs_label.txt
pair.list                MagFace: is_same is the last word of a line; img.list beside it names two images a pair
header with is_same      CSV such as CVLface's pairs.csv: index,A,B,is_same,cossim; of several images the last two
                         count, which are paths where names come before them. CVLface's own lists have no such column
                         before its program has guessed it: they say what to compare, not what is true, and are refused.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import LazyRecords, Record, VerificationSet
from marginface.readers.containment import Bounds
from marginface.readers.list_file import DELIMITERS, cells, with_slashes
from marginface.readers.list_line import BETWEEN, IMAGE, IMAGE_END
from marginface.readers.listed_images import ListedImages
from marginface.readers.names import PackedNames
from marginface.untrusted import free_memory, read_head, read_lines

ONE = rf"[\"']?(.+?\.(?:{IMAGE_END}))[\"']?"
PAIR = re.compile(rf"{ONE}[\s,;]+{ONE}(?=[\s,;]|$)", re.IGNORECASE)
WORD = re.compile(r"((\d+|true|false)[\s,;]+)*", re.IGNORECASE)
FLAGS = {"0": False, "1": True, "false": False, "true": True}
Pair = tuple[str, str, bool]
MEMORY = 32  # bytes that a byte of a list may take


def is_pair_list(path: Path) -> bool:
    """Whether one of the first lines of the text reads as a pair, or the file is MagFace's pair.list."""
    if not path.is_file():
        return False
    lines = [line for line in read_head(path, 1 << 14).splitlines() if line.strip()][:3]
    return _is_magface(path) or _delimiter(lines) != "" or any(_pair(line) is not None for line in lines)


def read_pair_list(path: Path, bounds: Bounds) -> VerificationSet:
    """Images lie where `listed_images` looks for them.

    Raises InputError naming the line that is no pair, the first image if that is nowhere, or one that leads out.
    """
    lines = {number: line for number, line in enumerate(_lines(path), start=1) if line.strip()}
    pairs = _magface(path, lines, bounds) if _is_magface(path) else _pairs(path, lines)
    if not pairs:
        raise InputError(f"{path}: names no pairs.")
    names = PackedNames(side for first, second, _ in pairs for side in (first, second))
    issame = np.array([same for _, _, same in pairs], dtype=bool)
    images = ListedImages(path, names, bounds.allow_outside)

    def record(position: int) -> Record:
        return Record(images.read(position), position // 2, names[position])

    return VerificationSet(LazyRecords(len(names), record), issame, path.stem)


def _lines(path: Path) -> Iterator[str]:
    if path.stat().st_size > (most := free_memory() // MEMORY):
        raise InputError(f"{path}: has {path.stat().st_size:,} bytes, more than the {most:,} that memory allows.")
    return (line.rstrip("\n") for line in read_lines(path, errors="surrogateescape"))


def _pairs(path: Path, lines: dict[int, str]) -> list[Pair]:
    if delimiter := _delimiter(list(lines.values())[:2]):
        header = [word.lower() for word in cells(lines.pop(next(iter(lines))), delimiter)]
        if "is_same" not in header:
            raise InputError(f"{path}: has no column is_same; add one, 1 where both images show one person and else 0.")
        found = {number: _of_cells(cells(line, delimiter), header.index("is_same")) for number, line in lines.items()}
    else:
        found = {number: _pair(line) for number, line in lines.items()}
        if found and found[first := next(iter(found))] is None:
            del found[first]  # a header
    for number, pair in found.items():
        if pair is None:
            raise InputError(f"{path}: line {number} is not two images and 0 or 1: {lines[number]!r:.100}.")
    return [pair for pair in found.values() if pair is not None]


def _pair(line: str) -> Pair | None:
    line = line.strip()
    start = WORD.match(line)
    images = PAIR.match(line, start.end() if start else 0)
    if images is None:
        return None
    flags = re.split(r"[\s,;]+", f"{line[: start.end() if start else 0]} {line[images.end() :]}".strip(BETWEEN).lower())
    if not 1 <= len(flags) <= 2 or flags[-1] not in FLAGS:  # before it there may be the number of the line
        return None
    return with_slashes(images[1]), with_slashes(images[2]), FLAGS[flags[-1]]


def _delimiter(lines: list[str]) -> str:
    """That of a table whose header has is_same, or A and B as CVLface has it; "" for other lists."""
    for delimiter in DELIMITERS:
        header = {word.lower() for word in cells(lines[0], delimiter)} if lines else set()
        images = [cell for line in lines[1:2] for cell in cells(line, delimiter) if IMAGE.search(cell)]
        if len(header) > 2 and ("is_same" in header or ({"a", "b"} <= header and len(images) > 1)):
            return delimiter
    return ""


def _of_cells(row: list[str], flag: int) -> Pair | None:
    images = [with_slashes(cell) for cell in row if IMAGE.search(cell)][-2:]
    if len(images) != 2 or flag >= len(row) or row[flag].lower() not in FLAGS:
        return None
    return images[0], images[1], FLAGS[row[flag].lower()]


def _is_magface(path: Path) -> bool:
    return path.name.endswith("pair.list") and _images_beside(path).is_file()


def _images_beside(path: Path) -> Path:
    return path.with_name(path.name.replace("pair.list", "img.list"))


def _magface(path: Path, lines: dict[int, str], bounds: Bounds) -> list[Pair]:
    bounds.check(_images_beside(path))
    images = [word for line in _lines(_images_beside(path)) for word in line.split()]
    flags = [line.split()[-1] for line in lines.values()]
    if len(images) != 2 * len(flags):
        raise InputError(f"{path}: has {len(flags)} pairs, but img.list {len(images)} images instead of twice as many.")
    for number, flag in zip(lines, flags, strict=True):
        if flag not in ("0", "1"):
            raise InputError(f"{path}: line {number} does not end with 0 or 1: {flag!r:.40}.")
    return [(first, other, flag == "1") for first, other, flag in zip(images[::2], images[1::2], flags, strict=True)]
