"""Verification on a list of pairs: LFW-style `pairs.txt` on a folder, or pairs drawn from any labelled set.

`evaluate` embeds `pairs.images` in their order and hands the array to `score`. Format of pairs.txt: a header
`10<TAB>300` (folds, pairs of each kind a fold), then for each fold 300 lines `name a b` (same person) and 300
lines `name a other b` (different people); picture b of name is `name/name_000b.jpg` (or .jpeg, .png).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.files import replace_file
from marginface.metrics.result import FARS, VerificationResult, verify
from marginface.metrics.verification import check_embeddings
from marginface.protocols.draw import draw_pairs

SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Pairs:
    """A verification benchmark.

    images: what to embed, in this order: paths, or record indices of a reader. `keys` are their names.
    first, second: int64 (P,), indices into `images`. same: bool (P,). folds: index arrays over the pairs.
    subjects: int64 (len(images),), the person of each image; None where the format does not say.
    notes: oddities of the list, for people to read beside the figures.
    """

    name: str
    images: Sequence[Path] | Sequence[int]
    keys: Sequence[str]
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    folds: list[np.ndarray] = field(repr=False)
    subjects: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def score(
        self,
        embeddings: np.ndarray,
        model: str = "model",
        *,
        xnorm: float | None = None,
        fars: Sequence[float] = FARS,
        replicates: int = 1000,
        seed: int = 0,
    ) -> VerificationResult:
        """Every verification figure for `embeddings`, float (len(images), D), normalised or not.

        model: the row's name in tables. xnorm: mean embedding length before normalisation, if known.
        replicates: bootstrap size of the intervals; 0 leaves them out (quick evaluations while training).
        Raises InputError for a wrong count or dimension and for zero or non-finite embeddings.
        """
        check_embeddings(embeddings, len(self.images))
        return verify(
            embeddings,
            self.first,
            self.second,
            self.same,
            self.folds,
            model=model,
            benchmark=self.name,
            subjects=self.subjects,
            keys=self.keys,
            notes=self.notes,
            xnorm=xnorm,
            fars=fars,
            replicates=replicates,
            seed=seed,
        )


def read_pairs(pairs_file: str | Path, folder: str | Path, name: str | None = None) -> Pairs:
    """The benchmark of an LFW-style pairs.txt over the pictures in `folder`.

    Repeated pairs stay, and are counted in `notes`. Raises InputError naming the line for malformed lines
    and wrong counts, and naming and counting missing pictures.
    """
    pairs_file, folder = Path(pairs_file), Path(folder)
    sides, same, folds = _parse(pairs_file)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one that holds a folder a person")
    wanted = sorted({side for pair in sides for side in pair})
    paths = [_picture(folder, person, number) for person, number in wanted]
    if missing := [f"{person} {number}" for (person, number), path in zip(wanted, paths, strict=True) if path is None]:
        raise InputError(
            f"{len(missing)} of the {len(wanted)} pictures named in {pairs_file} are not in {folder} "
            f"(first: {missing[0]}); add them or remove their pairs"
        )
    images = [path for path in paths if path is not None]
    index = {side: number for number, side in enumerate(wanted)}
    people = {person: number for number, person in enumerate(sorted({person for person, _ in wanted}))}
    return Pairs(
        name=name or folder.name,
        images=images,
        keys=[str(path.relative_to(folder)) for path in images],
        first=np.array([index[a] for a, _ in sides]),
        second=np.array([index[b] for _, b in sides]),
        same=same,
        folds=folds,
        subjects=np.array([people[person] for person, _ in wanted]),
        notes=tuple(_duplicates(sides)),
    )


def make_pairs(
    labels: np.ndarray,
    folds: int = 10,
    per_fold: int | None = None,
    seed: int = 0,
    *,
    name: str = "pairs",
    keys: Sequence[str] | None = None,
) -> Pairs:
    """Balanced pairs from a labelled set (a reader's `labels`); `images` are the record indices in use.

    Each fold has people of its own and `per_fold` same and as many different pairs, none twice; `per_fold`
    None takes LFW's 300, or as many as the set yields. keys: name of every record, by default `person/index`.
    Raises InputError when the labels cannot yield them.
    """
    first, second, same = draw_pairs(labels, folds, per_fold, seed)
    records, index = np.unique(np.concatenate([first, second]), return_inverse=True)
    return Pairs(
        name=name,
        images=records.tolist(),
        keys=[keys[i] if keys is not None else f"{labels[i]}/{i}" for i in records],
        first=index[: len(first)],
        second=index[len(first) :],
        same=same,
        folds=np.split(np.arange(len(same)), folds),
        subjects=np.asarray(labels)[records],
    )


def make_folder_pairs(
    folder: str | Path, folds: int = 10, per_fold: int | None = None, seed: int = 0, name: str | None = None
) -> Pairs:
    """`make_pairs` over the pictures of `folder`, one folder a person; `images` are paths."""
    folder = Path(folder)
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no pictures in folders, one a person ({', '.join(SUFFIXES)})")
    people = {person: number for number, person in enumerate(sorted({path.parent.name for path in paths}))}
    labels = np.array([people[path.parent.name] for path in paths])
    keys = [str(path.relative_to(folder)) for path in paths]
    drawn = make_pairs(labels, folds, per_fold, seed, name=name or folder.name, keys=keys)
    images = [paths[int(index)] for index in drawn.images if isinstance(index, int)]
    return Pairs(drawn.name, images, drawn.keys, drawn.first, drawn.second, drawn.same, drawn.folds, drawn.subjects)


def write_pairs(pairs_file: str | Path, pairs: Pairs) -> None:
    """Writes pairs.txt, same pairs first in each fold; pictures must be called `person/person_0001.jpg`."""
    names = [_lfw_name(key) for key in pairs.keys]
    sizes = {(int(np.sum(pairs.same[fold])), int(np.sum(~pairs.same[fold]))) for fold in pairs.folds}
    if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1:
        raise InputError("pairs.txt holds as many same as different pairs in every fold; these folds differ")
    lines = [f"{len(pairs.folds)}\t{next(iter(sizes))[0]}"]
    for fold in pairs.folds:
        for kind in (True, False):
            for pair in fold[pairs.same[fold] == kind]:
                a, b = names[pairs.first[pair]], names[pairs.second[pair]]
                lines.append(f"{a[0]}\t{a[1]}\t{b[1]}" if kind else f"{a[0]}\t{a[1]}\t{b[0]}\t{b[1]}")
    with replace_file(pairs_file) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


Side = tuple[str, int]


def _parse(pairs_file: Path) -> tuple[list[tuple[Side, Side]], np.ndarray, list[np.ndarray]]:
    """((person, number), (person, number)) of every pair, the same flags and the folds."""
    try:
        lines = [line.split() for line in pairs_file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{pairs_file} cannot be read as text: {error}") from error
    if not lines or len(lines[0]) != 2 or not all(word.isdecimal() for word in lines[0]):
        raise InputError(f"{pairs_file} must begin with a line 'folds<TAB>pairs of each kind', such as '10<TAB>300'")
    folds, each = (int(word) for word in lines[0])
    if folds < 2 or each < 1 or len(lines) - 1 != 2 * folds * each:
        raise InputError(
            f"{pairs_file} announces {folds} folds of {each} same and {each} different pairs "
            f"but holds {len(lines) - 1} pairs; correct its first line"
        )
    sides = [_sides(words, pairs_file, number) for number, words in enumerate(lines[1:], start=2)]
    same = np.array([len(words) == 3 for words in lines[1:]])
    expected = np.tile(np.repeat([True, False], each), folds)
    if wrong := np.flatnonzero(same != expected).tolist():
        raise InputError(
            f"{pairs_file} line {wrong[0] + 2}: each fold must list its {each} same pairs, then its {each} "
            f"different ones ({len(wrong)} lines out of place)"
        )
    return sides, same, np.split(np.arange(len(same)), folds)


def _sides(words: list[str], pairs_file: Path, line: int) -> tuple[Side, Side]:
    numbers = [words[1], words[-1]] if len(words) in (3, 4) else []
    if not numbers or not all(word.isdecimal() for word in numbers):
        raise InputError(
            f"{pairs_file} line {line}: expected 'name a b' or 'name a other b', found '{' '.join(words)}'"
        )
    first, second = (words[0], int(numbers[0])), (words[-2] if len(words) == 4 else words[0], int(numbers[1]))
    if len(words) == 4 and first[0] == second[0]:
        raise InputError(f"{pairs_file} line {line}: a different pair names {first[0]} twice")
    return first, second


def _duplicates(sides: list[tuple[Side, Side]]) -> list[str]:
    """A note for people when pairs are repeated: published lists have some, and the figures count them."""
    seen: dict[frozenset[Side], int] = {}
    repeated = [line for line, pair in enumerate(sides, start=2) if seen.setdefault(frozenset(pair), line) != line]
    return [f"{len(repeated)} pair(s) repeat an earlier one (first: line {repeated[0]})"] if repeated else []


def _picture(folder: Path, person: str, number: int) -> Path | None:
    paths = (folder / person / f"{person}_{number:04d}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _lfw_name(key: str) -> Side:
    path = Path(key)
    person = path.parent.name
    match = re.fullmatch(rf"{re.escape(person)}_(\d{{4,}})", path.stem)
    if not match or re.search(r"\s", person):
        raise InputError(f"pairs.txt cannot name {key}: pictures must be called person/person_0001.jpg")
    return person, int(match[1])
