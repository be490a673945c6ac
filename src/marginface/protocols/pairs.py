"""Verification on pairs of images: an LFW-style list, a stored set, or drawn from any labelled one.

`evaluate` embeds `pairs.images` in their order and hands the array to `score`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.files import create_file
from marginface.metrics.result import FARS, Trials, VerificationResult, verify
from marginface.metrics.roc import check_trials
from marginface.metrics.variants import OpenvinoLfw, openvino_lfw
from marginface.metrics.verification import check_embeddings, consecutive_folds, squared_distances
from marginface.protocols.draw import draw_pairs
from marginface.protocols.pairs_file import duplicates, lfw_name, parse_pairs
from marginface.readers.containment import Bounds, is_possible
from marginface.readers.image_walk import IMAGE_SUFFIXES, find_files, images_of_people, kind_of


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
        return verify(embeddings, self.trials, model=model, xnorm=xnorm, fars=fars, replicates=replicates, seed=seed)

    @property
    def trials(self) -> Trials:
        """The comparisons, without the images."""
        return Trials(self.name, self.first, self.second, self.same, self.folds, self.subjects, self.keys, self.notes)

    def openvino_lfw(self, embeddings: np.ndarray) -> OpenvinoLfw:
        """The figures of OpenVINO's `evaluate_lfw` for `embeddings`, float (len(images), D)."""
        check_embeddings(embeddings, len(self.images))
        return openvino_lfw(squared_distances(embeddings, self.first, self.second) / 2, self.same)


def read_pairs(
    pairs_file: str | Path, folder: str | Path, name: str | None = None, allow_outside: bool = False
) -> Pairs:
    """The benchmark of an LFW-style pairs.txt over the pictures in `folder`.

    Repeated pairs stay, and are counted in `notes`. Raises InputError naming the line for malformed lines
    and wrong counts, naming and counting missing pictures, and for one that lies outside of `folder`, unless
    `allow_outside`.
    """
    pairs_file, folder = Path(pairs_file), Path(folder)
    sides, same, folds = parse_pairs(pairs_file)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one that holds a folder a person")
    wanted = sorted({side for pair in sides for side in pair})
    bounds, named = Bounds(folder, allow_outside=allow_outside), {person for person, _ in wanted}
    try:
        bounds.check_all([folder / person for person in named if is_possible(person)])
    except InputError as error:
        raise InputError(f"{pairs_file}: {error}") from error
    pictures = {person: _pictures(folder, person) for person in named}
    paths = [pictures[person].get(number) for person, number in wanted]
    if missing := [side for side, path in zip(wanted, paths, strict=True) if path is None]:
        person, number = missing[0]
        raise InputError(
            f"{len(missing)} of the {len(wanted)} pictures named in {pairs_file} are not in {folder} "
            f"(first: {person} {number}, looked for as {person}/{person}_{number:04d}.jpg, {person}_{number}.jpg, "
            f"{number:04d}.jpg and {number}.jpg, also with other suffixes); add them or remove their pairs"
        )
    images = [path for path in paths if path is not None]
    try:
        bounds.check_all(images)
    except InputError as error:
        raise InputError(f"{pairs_file}: {error}") from error
    index = {side: number for number, side in enumerate(wanted)}
    people = {person: number for number, person in enumerate(sorted({person for person, _ in wanted}))}
    return Pairs(
        name=name or folder.name,
        images=images,
        keys=[f"{path.parent.name}/{path.name}" for path in images],
        first=np.array([index[a] for a, _ in sides]),
        second=np.array([index[b] for _, b in sides]),
        same=same,
        folds=folds,
        subjects=np.array([people[person] for person, _ in wanted]),
        notes=tuple(duplicates(sides)),
    )


def stored_pairs(issame: np.ndarray, name: str, keys: Sequence[str] | None = None, folds: int = 10) -> Pairs:
    """A stored verification set: images 2k and 2k + 1 form pair k, folds are runs of pairs as InsightFace cuts them.

    issame: bool (P,). keys: names of the 2P images. Who is who is unknown: intervals are drawn over pairs.
    Raises InputError for pairs of one kind only.
    """
    count = len(issame)
    check_trials(np.zeros(count), issame)  # now, not after all images are embedded
    return Pairs(
        name=name,
        images=range(2 * count),
        keys=keys if keys is not None else [f"{name}:{image}" for image in range(2 * count)],
        first=2 * np.arange(count),
        second=2 * np.arange(count) + 1,
        same=np.asarray(issame, dtype=bool),
        folds=consecutive_folds(count, folds),
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
    if folds < 2:
        raise InputError(f"accuracy over folds needs at least 2 folds, not {folds}")
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
    folder: str | Path,
    folds: int | None = None,
    per_fold: int | None = None,
    seed: int = 0,
    name: str | None = None,
    allow_outside: bool = False,
) -> Pairs:
    """`make_pairs` over the pictures of `folder`, one folder per person; `images` are paths.

    folds: by default 10, or half as many as there are people. Raises InputError for a symbolic link that leads out
    of `folder`, unless `allow_outside`.
    """
    folder = Path(folder)
    people = images_of_people(folder, Bounds(folder, allow_outside=allow_outside)) if folder.is_dir() else {}
    if not people:
        raise InputError(f"{folder} holds no pictures in folders, one per person ({', '.join(IMAGE_SUFFIXES)})")
    labels = np.repeat(np.arange(len(people)), [len(images) for images in people.values()])
    keys = [image for own in people.values() for image in own]
    folds = min(10, len(people) // 2) if folds is None else folds
    drawn = make_pairs(labels, folds, per_fold, seed, name=name or folder.name, keys=keys)
    images = [folder / keys[int(index)] for index in drawn.images if isinstance(index, int)]
    return Pairs(drawn.name, images, drawn.keys, drawn.first, drawn.second, drawn.same, drawn.folds, drawn.subjects)


def write_pairs(pairs_file: str | Path, pairs: Pairs, overwrite: bool = False) -> None:
    """Write pairs.txt, same pairs first in each fold; pictures must be called `person/person_0001.jpg`.

    Raises InputError for a file that exists, unless `overwrite` is set.
    """
    names = [lfw_name(key) for key in pairs.keys]
    sizes = {(int(np.sum(pairs.same[fold])), int(np.sum(~pairs.same[fold]))) for fold in pairs.folds}
    if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1:
        raise InputError("pairs.txt holds as many same as different pairs in every fold; these folds differ")
    lines = [f"{len(pairs.folds)}\t{next(iter(sizes))[0]}"]
    for fold in pairs.folds:
        for kind in (True, False):
            for pair in fold[pairs.same[fold] == kind]:
                a, b = names[pairs.first[pair]], names[pairs.second[pair]]
                lines.append(f"{a[0]}\t{a[1]}\t{b[1]}" if kind else f"{a[0]}\t{a[1]}\t{b[0]}\t{b[1]}")
    with create_file(pairs_file, overwrite) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _pictures(folder: Path, person: str) -> dict[int, Path]:
    """The pictures of a person by number: of `name_0001`, `name_1`, `0001` and `1` the first that is there."""
    if not is_possible(person) or not (folder / person).is_dir():
        return {}
    number = re.compile(rf"({re.escape(Path(person).name)}[_-])?(\d{{1,9}})")
    found: dict[int, tuple[bool, bool, int, Path]] = {}
    for path in find_files(folder / person, "*"):
        suffix, known = kind_of(path.name)
        match = number.fullmatch(path.name.removesuffix(path.suffix) if suffix else path.name)
        if match and known is not False and not path.is_dir():
            digits = match[2]
            rank = (match[1] is None, len(digits) != 4, len(digits), path)
            found[int(digits)] = min(found.get(int(digits), rank), rank)
    return {key: rank[3] for key, rank in found.items()}
