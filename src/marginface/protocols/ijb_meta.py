"""The meta files of IJB-B and IJB-C in InsightFace's packaging, read fast and kept in a cache. For `protocols.ijb`.

`<set>/meta/`: xx_face_tid_mid.txt (image, template, medium), xx_name_5pts_score.txt (image, five points, detector
score), both in one order; xx_template_pair_label.txt (template, template, 1 or 0: 15.7 million lines for IJB-C);
two gallery files and xx_1N_probe_mixed.csv (template, subject, ...; one header line).
"""

import codecs
import contextlib
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.files import replace_file
from marginface.readers.numpy_files import read_npz
from marginface.untrusted import free_memory, read_bytes

UNEVEN = rb"[\t\r]|  | \n|\n |\n\n|^[ \n]"
"""Blanks other than one between two numbers."""
WORDS = 32
"""Bytes of memory that a byte of these files may take once it is cut into words."""
GALLERIES = {"IJBB": ("S1", "S2"), "IJBC": ("G1", "G2")}


@dataclass(frozen=True)
class IjbMeta:
    """names: str (N,), file names in loose_crop. points: float32 (N, 5, 2), x and y in the crop.

    faceness: float32 (N,), the detector's score.
    templates, media: int32 (N,), ids. pairs: int32 (P, 2), template ids; same: bool (P,).
    gallery1, gallery2, probes: int32 (n, 2), template id and subject id of each template, by rising template id.
    """

    names: np.ndarray
    points: np.ndarray
    faceness: np.ndarray
    templates: np.ndarray
    media: np.ndarray
    pairs: np.ndarray
    same: np.ndarray
    gallery1: np.ndarray
    gallery2: np.ndarray
    probes: np.ndarray


def meta_files(folder: Path, name: str) -> dict[str, Path]:
    """What lies in `<folder>/meta` of the set `name`, by what it holds."""
    prefix = folder / "meta" / name.lower()
    ends = {
        "images": "face_tid_mid.txt",
        "points": "name_5pts_score.txt",
        "pairs": "template_pair_label.txt",
        "gallery1": f"1N_gallery_{GALLERIES[name][0]}.csv",
        "gallery2": f"1N_gallery_{GALLERIES[name][1]}.csv",
        "probes": "1N_probe_mixed.csv",
    }
    return {key: Path(f"{prefix}_{end}") for key, end in ends.items()}


def read_ijb_meta(folder: Path, name: str, cache: Path | None = None) -> IjbMeta:
    """Reads `<folder>/meta` of the set `name` ("IJBB" or "IJBC").

    cache: folder for the parsed arrays, by default `$XDG_CACHE_HOME/marginface`; files are known by path, size and
    time. Raises InputError naming file and line for malformed lines, and for files that do not fit together.
    """
    files = meta_files(folder, name)
    if missing := [str(path) for path in files.values() if not path.is_file()]:
        raise InputError(f"{len(missing)} meta files of {name} are missing (first: {missing[0]})")
    kept = (cache or _cache_folder()) / f"ijb-{_fingerprint(files)}.npz"
    found = _from_cache(kept)
    if found is None:
        found = _parse(files)
        arrays = {field.name: getattr(found, field.name) for field in fields(found)}
        with contextlib.suppress(OSError), replace_file(kept, False) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    return found


def parse_integers(text: bytes, columns: int, path: Path) -> np.ndarray:
    """int32 (lines, columns) of lines of `columns` non-negative decimal numbers below 10^9; blank lines do not count.

    Vectorised over blocks of whole lines, two at a time. Raises InputError naming the first malformed line.
    """
    original = text
    if re.search(UNEVEN, text):
        text = re.sub(rb"[ \t\r]+", b" ", text)
        text = re.sub(rb"(?: ?\n ?)+", b"\n", text).strip()
    if not text.endswith(b"\n"):
        text += b"\n"
    cuts = [0]
    while cuts[-1] < len(text):
        cuts.append(text.index(b"\n", min(cuts[-1] + (1 << 21), len(text) - 1)) + 1)
    data = np.frombuffer(text, np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = list(pool.map(lambda i: _block(data[cuts[i] : cuts[i + 1]], columns), range(len(cuts) - 1)))
    if any(block is None for block in blocks):
        line, words = _malformed(original, columns)
        raise InputError(f"{path} line {line}: expected {columns} whole numbers, found '{words}'")
    return np.concatenate([block for block in blocks if block is not None])


def _block(data: np.ndarray, columns: int) -> np.ndarray | None:
    """The numbers of one block of whole lines; None where a line is not as it should be."""
    blank = data <= ord(" ")
    ends = np.flatnonzero(blank)
    if len(ends) % columns:
        return None
    lengths = np.diff(ends, prepend=-1) - 1
    stops = data[ends].reshape(-1, columns)
    well_formed = np.all(stops[:, -1] == ord("\n")) and np.all(stops[:, :-1] != ord("\n"))
    digits = data - np.uint8(ord("0"))  # wraps around: anything else is above 9
    if not well_formed or lengths.min() < 1 or lengths.max() > 9 or np.any((digits > 9) & ~blank):
        return None
    values = np.empty((len(ends) // columns, columns), np.int32)
    for column in range(columns):
        values[:, column] = _numbers(digits, ends[column::columns] - 1, lengths[column::columns])
    return values


def _numbers(digits: np.ndarray, last: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int32 (n,): the numbers whose last digits are at `last` (n,) and that have `lengths` (n,) digits."""
    values: np.ndarray = digits[last].astype(np.int32)
    for place in range(1, int(lengths.max())):
        digit = digits.take(last - place, mode="clip")  # the block's first numbers may be short
        values += np.where(lengths > place, digit, 0) * np.int32(10**place)
    return values


def _malformed(text: bytes, columns: int) -> tuple[int, str]:
    for number, line in enumerate(text.split(b"\n"), start=1):
        words = line.split()
        if words and (len(words) != columns or not all(word.isdigit() and len(word) < 10 for word in words)):
            return number, line[:60].decode(errors="replace")
    return 1, text[:60].decode(errors="replace")


def _parse(files: dict[str, Path]) -> IjbMeta:
    names, ids = _named_table(files["images"], 2)
    if bad := np.flatnonzero(np.any((ids < 0) | (ids >= 2**31) | (ids % 1 != 0), axis=1)).tolist():
        raise InputError(
            f"{files['images']} line {bad[0] + 1}: template and medium must be whole numbers below 2^31 "
            f"({len(bad)} lines are not so)"
        )
    other_names, numbers = _named_table(files["points"], 11)
    if differing := np.flatnonzero(names[: len(other_names)] != other_names[: len(names)]).tolist():
        line = differing[0]
        raise InputError(
            f"{files['images']} and {files['points']} name different images in line {line + 1} "
            f"({names[line]}, {other_names[line]}; {len(differing)} lines differ)"
        )
    if len(names) != len(other_names):
        raise InputError(f"{files['images']} has {len(names)} lines, {files['points']} {len(other_names)}")
    pairs = parse_integers(_content(files["pairs"]), 3, files["pairs"])
    if bad := np.flatnonzero(pairs[:, 2] > 1).tolist():
        raise InputError(f"{files['pairs']} line {bad[0] + 1}: the label must be 0 or 1 ({len(bad)} are not)")
    return IjbMeta(
        names=names,
        points=numbers[:, :10].reshape(-1, 5, 2).astype(np.float32),
        faceness=numbers[:, 10].astype(np.float32),
        templates=ids[:, 0].astype(np.int32),
        media=ids[:, 1].astype(np.int32),
        pairs=np.ascontiguousarray(pairs[:, :2]),
        same=pairs[:, 2] == 1,
        gallery1=_subjects(files["gallery1"]),
        gallery2=_subjects(files["gallery2"]),
        probes=_subjects(files["probes"]),
    )


def _named_table(path: Path, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Names (N,) and float64 numbers (N, columns) of lines `name number ...`."""
    words = _content(path).split()
    width = columns + 1
    if not words or len(words) % width:
        raise InputError(f"{path}: every line must hold a name and {columns} numbers; {_uneven_line(path, width)}")
    try:
        names = np.array(words[::width]).astype(str)
        del words[::width]
        numbers = np.fromiter(map(float, words), np.float64, len(words)).reshape(-1, columns)
    except ValueError as error:
        raise InputError(f"{path}: {error}; {_uneven_line(path, width)}") from error
    if bad := np.flatnonzero(~np.isfinite(numbers).all(axis=1)).tolist():
        raise InputError(f"{path} line {bad[0] + 1}: a number is not finite ({len(bad)} such lines)")
    return names, numbers


def _content(path: Path) -> bytes:
    return read_bytes(path, free_memory() // WORDS).removeprefix(codecs.BOM_UTF8)


def _uneven_line(path: Path, width: int) -> str:
    for number, line in enumerate(_content(path).splitlines(), start=1):
        if len(line.split()) != width:
            return f"line {number} does not"
    return "lines are uneven"


def _subjects(path: Path) -> np.ndarray:
    """int32 (templates, 2): the rows (template, subject) of a csv, one for each template, by rising id."""
    rows = [line.split(b",")[:2] for line in _content(path).splitlines() if line.strip()]
    if rows and not all(map(_is_number, rows[0])):
        del rows[0]  # the header
    try:
        pairs = np.unique(np.array([[int(template), int(subject)] for template, subject in rows], np.int32), axis=0)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: lines must begin with a template and a subject number: {error}") from error
    if np.any(pairs < 0):
        raise InputError(f"{path}: {np.sum(pairs < 0)} of its numbers are negative")
    ids, counts = np.unique(pairs[:, 0], return_counts=True) if len(pairs) else (pairs, pairs)
    if not len(pairs) or np.any(counts > 1):
        double = ids[counts > 1].tolist()
        what = f"template {double[0]} has several subjects ({len(double)} such)" if double else "holds no template"
        raise InputError(f"{path}: {what}")
    return pairs


def _is_number(word: bytes) -> bool:
    return word.strip().lstrip(b"-").isdigit()


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marginface"


def _fingerprint(files: dict[str, Path]) -> str:
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files.values()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:20]


def _from_cache(path: Path) -> IjbMeta | None:
    """What an earlier call kept; None where there is nothing, or nothing whole."""
    try:
        kept = read_npz(path)
        return IjbMeta(**{field.name: kept[field.name] for field in fields(IjbMeta)})
    except (OSError, ValueError, KeyError):
        return None
