"""The text of LFW-style `pairs.txt`; `protocols.pairs` joins it with a folder of pictures.

A header `10<TAB>300` (folds, pairs of each kind a fold), then for each fold 300 lines `name a b` (same person) and 300
lines `name a other b` (different people); picture b of name is `name/name_000b.jpg`, or as `protocols.pairs` finds it.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.untrusted import read_lines

MOST_PAIRS = 1_000_000
Side = tuple[str, int]
"""Person and picture number."""


def parse_pairs(pairs_file: Path) -> tuple[list[tuple[Side, Side]], np.ndarray, list[np.ndarray]]:
    """((person, number), (person, number)) of every pair, the same flags and the folds."""
    lines = _lines(pairs_file)
    _, header = next(lines, (1, []))
    if len(header) != 2 or not all(map(_is_number, header)):
        raise InputError(f"{pairs_file} must begin with a line 'folds<TAB>pairs of each kind', such as '10<TAB>300'")
    folds, each = (int(word) for word in header)
    announced = 2 * folds * each
    if announced > MOST_PAIRS:
        raise InputError(f"{pairs_file} announces {announced:,} pairs, more than the {MOST_PAIRS:,} that are read")
    pairs = list(islice(lines, announced))
    found = len(pairs) + sum(1 for _ in lines)
    if folds < 2 or each < 1 or found != announced:
        raise InputError(
            f"{pairs_file} announces {folds} folds of {each} same and {each} different pairs "
            f"but holds {found} pairs; correct its first line"
        )
    sides = [_sides(words, pairs_file, number) for number, words in pairs]
    same = np.array([len(words) == 3 for _, words in pairs])
    expected = np.tile(np.repeat([True, False], each), folds)
    if wrong := np.flatnonzero(same != expected).tolist():
        raise InputError(
            f"{pairs_file} line {pairs[wrong[0]][0]}: each fold must list its {each} same pairs, then its {each} "
            f"different ones ({len(wrong)} lines out of place)"
        )
    return sides, same, np.split(np.arange(len(same)), folds)


def _lines(pairs_file: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, words) of each line with some; more words than a pair needs are left together."""
    try:
        for number, line in enumerate(read_lines(pairs_file), start=1):
            if line := line.strip():
                yield number, line.split(maxsplit=4)
    except OSError as error:
        raise InputError(f"{pairs_file} cannot be read as text: {error}") from error


def _sides(words: list[str], pairs_file: Path, line: int) -> tuple[Side, Side]:
    numbers = [words[1], words[-1]] if len(words) in (3, 4) else []
    if not numbers or not all(map(_is_number, numbers)):
        raise InputError(
            f"{pairs_file} line {line}: expected 'name a b' or 'name a other b', found '{' '.join(words)[:100]}'"
        )
    first, second = (words[0], int(numbers[0])), (words[-2] if len(words) == 4 else words[0], int(numbers[1]))
    if len(words) == 4 and first[0] == second[0]:
        raise InputError(f"{pairs_file} line {line}: a different pair names {first[0]} twice")
    return first, second


def _is_number(word: str) -> bool:
    return word.isdecimal() and len(word) < 10


def duplicates(sides: list[tuple[Side, Side]]) -> list[str]:
    """A note for people when pairs are repeated: published lists have some, and the figures count them."""
    seen: dict[frozenset[Side], int] = {}
    repeated = [line for line, pair in enumerate(sides, start=2) if seen.setdefault(frozenset(pair), line) != line]
    return [f"{len(repeated)} pair(s) repeat an earlier one (first: line {repeated[0]})"] if repeated else []


def lfw_name(key: str) -> Side:
    path = Path(key)
    person = path.parent.name
    match = re.fullmatch(rf"{re.escape(person)}_(\d{{4,}})", path.stem)
    if not match or re.search(r"\s", person):
        raise InputError(f"pairs.txt cannot name {key}: pictures must be called person/person_0001.jpg")
    return person, int(match[1])
