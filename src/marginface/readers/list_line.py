"""What one line of an image list says: its path, and which of its numbers are label and points. For `lists`.

The dialects, told apart by how many numbers stand before and after the path:

    path                                  VGGFace2; the identity is the folder
    path  label                           CelebA's identity_CelebA.txt, and others
    path  0 label 0                       MagFace
    path  10 numbers                      LFW and TrillionPairs landmarks; the identity is the folder
    path  label  10 numbers               TrillionPairs (pixels), CASIA (shares of the image)
    path | 10 numbers | x y w h           MS-Celeb-1M (shares of the box), IMDB-Face (shares of the image)
    label  path                           whoever
    index  label ...  path                MXNet im2rec
    index  path  label                    CVLface's train.tsv
    flag  path  label                     InsightFace, aligned
    flag  path  label  4 and 10 numbers   InsightFace, with box and points

Blanks, commas, semicolons or tabs part them; a name may stand for a label. See `list_file` for headers and quotes.
"""

import re
from dataclasses import dataclass

from marginface.readers.image_walk import IMAGE_SUFFIXES, UNSURE

NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
IMAGE_END = "|".join(re.escape(suffix[1:]) for suffix in sorted({*IMAGE_SUFFIXES, *UNSURE}, reverse=True))
IMAGE = re.compile(rf"\.({IMAGE_END})$", re.IGNORECASE)
LEADING = re.compile(rf"(?:{NUMBER.pattern}[\s,;]+)*")
NAMED = re.compile(rf"([\"']?)(?P<path>.+\.(?:{IMAGE_END}))\1(?=[\s,;]|$)", re.IGNORECASE)
"""A path that ends as an image does; it may hold blanks and commas."""
BETWEEN = " \t,;"


@dataclass(frozen=True, slots=True)
class Line:
    """label: as written, or the folder of the image. points: x1, y1 ... x5, y5 as written. box: x, y, w, h."""

    path: str
    label: str
    points: tuple[float, ...] | None = None
    box: tuple[float, ...] | None = None


def parse_line(text: str) -> Line | None:
    """None for a line that names no usable face: empty, or of a face that was not detected; comments are the caller's.

    Raises ValueError if it is of none of the dialects.
    """
    text = text.strip()
    if not text:
        return None
    return _piped(text) if text.count("|") > 1 else as_line(*_split(text))


def is_comment(text: str) -> bool:
    """Whether the line begins with `#`."""
    return text.lstrip().startswith("#")


def as_line(before: list[str], path: str, after: list[str]) -> Line:
    """What the words before and after a path say. Raises ValueError if they are of none of the dialects."""
    named = [word for word in (*before, *after) if not NUMBER.fullmatch(word)]
    if named and len(after) == 11 and not named[1:]:
        return Line(path, after[0], _numbers(after[1:]))
    if named:
        return Line(path, after[0] if after else before[-1])
    match len(before), len(after):
        case 0, 0:
            return Line(path, folder_of(path))
        case 0, 1:
            return Line(path, after[0])
        case 0, 3:
            return Line(path, after[1])
        case 0, 10:
            return Line(path, folder_of(path), _numbers(after))
        case 0, 11:
            return Line(path, after[0], _numbers(after[1:]))
        case 1, 0:
            return Line(path, before[0])
        case 1, 1:
            return Line(path, after[0])
        case 1, 15:
            return Line(path, after[0], _numbers(after[5:]), _numbers(after[1:5]))
        case count, 0 if count >= 2:
            return Line(path, before[1])
    raise ValueError(f"{len(before)} numbers before and {len(after)} after the path")


def is_path(text: str) -> bool:
    """Whether this looks like the path of an image: with a folder, or the suffix of an image."""
    return re.search(r"[/\\]|\.\w{3,4}$", text) is not None


def _piped(text: str) -> Line | None:
    fields = [field.strip() for field in text.split("|")]
    if not fields[1]:
        return None
    points, box = fields[1].split(), fields[2].split()
    if len(points) != 10 or len(box) != 4:
        raise ValueError(f"{len(points)} numbers of points and {len(box)} of a box, not 10 and 4")
    return Line(fields[0], folder_of(fields[0]), _numbers(points), _numbers(box))


def _split(text: str) -> tuple[list[str], str, list[str]]:
    """(words before the path, path, words after it)."""
    start = LEADING.match(text)
    begin = start.end() if start else 0
    before = re.split(r"[\s,;]+", text[:begin].strip(BETWEEN)) if begin else []
    if found := NAMED.match(text, begin):
        rest = text[found.end() :].strip(BETWEEN)
        words = re.split(r"[\s,;]+", rest) if rest else []
        if all(map(NUMBER.fullmatch, words)):
            return before, found["path"], words
        return before, found["path"], [rest.strip("\"'")]
    words = text.split()
    names = [i for i, word in enumerate(words) if not NUMBER.fullmatch(word)]
    if not names:
        raise ValueError("no path")
    return words[: names[0]], " ".join(words[names[0] : names[-1] + 1]), words[names[-1] + 1 :]


def _numbers(words: list[str]) -> tuple[float, ...]:
    if not all(NUMBER.fullmatch(word) for word in words):
        raise ValueError("points that are no numbers")
    return tuple(float(word) for word in words)


def folder_of(path: str) -> str:
    """The folder that an image lies in, which is its identity where no label is written."""
    return path.replace("\\", "/").rpartition("/")[0]
