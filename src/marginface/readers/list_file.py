"""Image lists as programs, spreadsheets and people write them: header, delimiter, quotes, comments. For `lists`.

Cells are parted by tabs, commas or semicolons, with the quotes of CSV, or a line is one of the dialects of `list_line`.
Of the forms that the first lines allow, the one is taken that names an image which is there.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from marginface.errors import InputError
from marginface.readers.list_line import IMAGE, NUMBER, Line, as_line, folder_of, is_comment, is_path, parse_line
from marginface.untrusted import read_head, read_lines

HEAD = 1 << 16  # bytes by which the form is known
LINES = 20
DELIMITERS = "\t,;"
PATHS = (
    *("path", "image_path", "img_path", "file_path", "filepath", "file", "filename", "file_name", "image", "img"),
    *("image_name", "img_name", "image_id", "image_file", "name"),
)
LABELS = (
    *("label", "labels", "identity", "identity_id", "class", "class_id", "person_id", "subject_id", "target", "cls"),
    *("person", "subject", "identity_name", "person_name", "class_name", "name", "id"),
)
WITH_POINTS = (11, 12)  # columns: a path, perhaps a label, five points
EXPECTED = "expected an image and whose it is, such as 'ann/1.jpg,ann' or 'ann/1.jpg 5', a line for each image"

Parse = Callable[[str], Line | None]


def is_list(path: Path) -> bool:
    """Whether one of the first lines of the text names an image."""
    return bool(_forms(read_head(path, HEAD).splitlines()[:LINES]))


def list_lines(path: Path, exists: Callable[[str], bool]) -> Iterator[Line]:
    """The lines of a list that name usable faces.

    exists: whether there is an image of this path. Raises InputError, naming the line, for one that is not understood.
    """
    head = read_head(path, HEAD).splitlines()[:LINES]
    forms = _forms(head)
    if not forms:
        raise InputError(f"{path}: line 1 is no line of an image list; {EXPECTED}.")
    parse, start = next((form for form in forms if _found(head, *form, exists)), forms[0])
    first: Line | None = None
    for number, text in enumerate(read_lines(path, errors="surrogateescape"), start=1):
        if number <= start:
            continue
        try:
            line = _commented(text, parse, exists) if is_comment(text) else parse(text)
            if line is None:
                continue
            first = first or line
            if (line.points is None, line.box is None) != (first.points is None, first.box is None):
                raise ValueError("it has not as many numbers as the lines before")
        except ValueError as error:
            raise InputError(f"{path}: line {number} is no line of an image list: {error}; {EXPECTED}.") from error
        yield line


def _commented(text: str, parse: Parse, exists: Callable[[str], bool]) -> Line | None:
    """Return the line if its image is there and its path, or its folder and label, begin with `#`; else None."""
    try:
        line = parse(text)
    except ValueError:
        return None
    if line is None:
        return None
    named = line.path.startswith("#") or (line.label.startswith("#") and f"/{line.label}/" in f"/{line.path}")
    return line if named and exists(line.path) else None


def _found(head: list[str], parse: Parse, start: int, exists: Callable[[str], bool]) -> bool:
    """Whether the first image that this form finds in the list is there."""
    for text in head[start:]:
        try:
            if not is_comment(text) and (line := parse(text)):
                return exists(line.path)
        except ValueError:
            return False
    return False


def _forms(head: list[str]) -> list[tuple[Parse, int]]:
    """(how to parse a line, how many lines come before the first): every form that the first lines may have."""
    given = [number for number, text in enumerate(head) if text.strip() and not is_comment(text)]
    forms: list[tuple[Parse, int]] = []
    for delimiter in DELIMITERS:
        rows = [cells(head[number], delimiter) for number in given]
        titled = len(rows) > 1 and not any(map(_is_image, rows[0]))
        header = [re.sub(r"\W+", "_", cell.lower()) for cell in rows[0]] if titled else []
        named = [header.index(name) for name in PATHS if name in header]
        body = [row for row in rows[titled:] if len(row) == len(rows[0])]
        if not body or len(rows[0]) < 2 or (len(body) + titled < len(rows) and not named):
            continue
        columns = [column for column in range(len(rows[0])) if all(_is_image(row[column]) for row in body)]
        if columns:
            place = next(column for column in (*named, *columns) if column in columns)
            forms.append((_by_cells(delimiter, place, header), given[0] + 1 if titled else 0))
    lines = [_is_line(head[number]) for number in given]
    if any(lines):
        forms.append((lambda text: _normal(parse_line(text)), 0 if lines[0] is not False else given[0] + 1))
    return forms


def _by_cells(delimiter: str, place: int, header: list[str]) -> Parse:
    """Parses lines of cells whose path is in the column `place`."""
    labels = [header.index(name) for name in LABELS if name in header and header.index(name) != place]

    def parse(text: str) -> Line | None:
        if not text.strip():
            return None
        row = cells(text, delimiter)
        if len(row) < max(place + 1, len(header)):
            raise ValueError(f"it has {len(row)} cells")
        if not header or (not labels and len(header) == 2) or len(header) in WITH_POINTS:
            before, after = row[:place], [cell for cell in row[place + 1 :] if cell]
            if numbers := [word for cell in after for word in cell.split() if NUMBER.fullmatch(word)]:
                after = numbers if numbers == " ".join(after).split() else after
            return _normal(as_line(before, row[place], after))
        return _normal(Line(row[place], row[labels[0]] if labels else ""))

    return parse


def _normal(line: Line | None) -> Line | None:
    """Folders parted by `/`, and the folder as label where there is none."""
    if line is None:
        return None
    path = with_slashes(line.path)
    if not path:
        raise ValueError("it names no image")
    if path == line.path and line.label:
        return line
    own = line.label == folder_of(line.path)
    return replace(line, path=path, label=folder_of(path) if own or not line.label else line.label)


def with_slashes(path: str) -> str:
    """A path of Windows with `/` between its folders, which opens everywhere."""
    return (path if "/" in path else path.replace("\\", "/")).removeprefix("./")


def cells(text: str, delimiter: str) -> list[str]:
    """The cells of a row of CSV, without blanks at their ends; none where it is damaged."""
    try:
        return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])]
    except csv.Error:
        return []


def _is_image(cell: str) -> bool:
    return NUMBER.fullmatch(cell) is None and (IMAGE.search(cell) is not None or is_path(cell))


def _is_line(text: str) -> bool | None:
    """Whether it names an image; None for one whose face was not found."""
    try:
        line = parse_line(text)
    except ValueError:
        return False
    return None if line is None else is_path(line.path)
