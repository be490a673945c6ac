"""Data sets to data sets: any that `readers` opens into any that they write, bytes unchanged. For the command line."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.files import check_apart, check_file, check_folder, replace_file
from marginface.loading.alignment import read_alignment, write_alignment
from marginface.protocols.pairs import make_pairs, read_pairs
from marginface.readers import open_reader
from marginface.readers.base import Reader, Record
from marginface.readers.bin_writer import write_bin
from marginface.readers.folder_writer import FolderWriter
from marginface.readers.image_walk import describe_left_out
from marginface.readers.recordio_writer import RecordIOWriter
from marginface.readers.shards_writer import ShardsWriter
from marginface.readers.subset import TOGETHER, index_rows, is_index, keys
from marginface.readers.table_writer import TableWriter
from marginface.readers.verification import is_verification, open_verification
from marginface.readers.writer import Contents, Writer, encoded
from marginface.untrusted import LARGEST_IMAGE, read_bytes, read_json, read_lines

WRITERS: dict[str, Callable[[Path, Contents, dict[str, int]], Writer]] = {
    "folder": FolderWriter,
    "recordio": RecordIOWriter,
    "parquet": TableWriter,
    "webdataset": ShardsWriter,
}
TARGETS = (*WRITERS, "bin")
JOURNAL = ".convert.json"  # no identity is called so
JOURNAL_EVERY = 16  # batches of TOGETHER
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Selection:
    """Which records of a set to keep.

    Args:
        subset: a file of keys, one a line, or AdaFace's line of numbers separated by commas, which count images in
            the order of an image folder
        min_images: leave out identities with fewer images, counted after `subset`
        identities: keep the first so many identities
        limit_per_identity: keep the first so many images of each
    """

    subset: str | None = None
    min_images: int = 1
    identities: int | None = None
    limit_per_identity: int | None = None


def convert(
    source: str,
    destination: str | os.PathLike[str],
    to: str = "recordio",
    selection: Selection | None = None,
    workers: int = 2,
    progress: Progress = lambda done, total: None,
    allow_outside: bool = False,
    tell: Callable[[str], None] = lambda sentence: None,
) -> int:
    """Writes the set `source` to the new or empty folder `destination`; returns how many images it holds.

    Images are copied byte by byte; only pixels that were never encoded become PNG. Images are ordered by label;
    labels stay as they are unless identities are left out, which closes the gaps. Until all is written the folder
    is called `destination.partial`; the same command goes on from there after an interruption.

    to: one of "folder", "recordio", "parquet", "webdataset". tell: is given the sentence on files that are not taken.
    Raises InputError if the destination holds anything or lies in the source, or if a half-written one comes from
    another command.
    """
    if to not in WRITERS:
        raise InputError(f"--to {to}: not a format that is written; choose {', '.join(TARGETS)}.")
    target = Path(destination)
    check_apart(target, source)
    check_folder(target)
    reader = open_reader(source, allow_outside)
    tell(describe_left_out(source, reader))
    rows, contents = select(reader, selection or Selection())
    staging = target.with_name(f"{target.name}.partial")
    try:
        _write(reader, rows, contents, to, staging, _fingerprint(source, to, rows, contents), workers, progress)
    except OSError as error:
        ours = error.filename is None or str(error.filename).startswith(str(staging))
        reason = os.strerror(error.errno) if error.errno else error  # pyarrow's own is long
        raise InputError(
            f"{target if ours else error.filename}: {reason}; mend that and give the same command again, which goes on "
            f"with {staging}"
        ) from error
    if alignment := read_alignment(source, allow_outside):
        write_alignment(staging, alignment)
    os.sync()
    check_folder(target)
    staging.replace(target)
    return len(rows)


def _write(
    reader: Reader,
    rows: np.ndarray,
    contents: Contents,
    to: str,
    staging: Path,
    fingerprint: str,
    workers: int,
    progress: Progress,
) -> None:
    """Fills `staging`, from where an earlier run came."""
    journal = _Journal(staging, fingerprint)
    writer = WRITERS[to](staging, contents, journal.state)
    done = journal.state.get("done", 0)
    for number, records in enumerate(_read_ahead(reader, rows[done:], contents.labels[done:], workers)):
        writer.write(records)
        done += len(records)
        if number % JOURNAL_EVERY == JOURNAL_EVERY - 1:
            journal.save(writer.state())
        progress(done, len(rows))
    writer.finish()
    journal.remove()


def convert_pairs(
    source: str, destination: str | os.PathLike[str], pairs: str | None = None, allow_outside: bool = False
) -> int:
    """Writes a verification set as InsightFace's `.bin`; returns the number of pairs.

    source: a stored verification set; or a labelled set, of which 10 folds of pairs are drawn; or, with `pairs`
    the path of an LFW-style pairs.txt, the folder of its photographs. Raises InputError if the file exists.
    """
    target = Path(destination)
    check_file(target)
    images, issame = _pairs(source, pairs, allow_outside)
    write_bin(target, images, issame)
    return len(issame)


def select(reader: Reader, selection: Selection) -> tuple[np.ndarray, Contents]:
    """(rows of the reader in ascending order of label, what they are), int64."""
    rows = np.arange(len(reader)) if selection.subset is None else _subset(reader, Path(selection.subset))
    rows = rows[np.argsort(reader.labels[rows], kind="stable")]
    labels = reader.labels[rows]
    counts = np.bincount(labels, minlength=reader.num_classes)
    kept = counts >= max(selection.min_images, 1)
    if selection.identities is not None:
        kept &= np.cumsum(kept) <= selection.identities
    of_kept = kept[labels]
    if selection.limit_per_identity is not None:
        rank = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels]
        of_kept &= rank < selection.limit_per_identity
    rows, labels = rows[of_kept], labels[of_kept]
    if len(rows) == 0:
        raise InputError(
            "Nothing is left of the set: no identity has as many images, or the subset names none of them."
        )
    names = getattr(reader, "class_names", None)
    if selection == Selection():
        return rows, Contents(labels, reader.num_classes, names)
    new = np.cumsum(kept) - 1
    names = None if names is None else [names[label] for label in np.flatnonzero(kept)]
    return rows, Contents(new[labels], int(kept.sum()), names)


def _subset(reader: Reader, file: Path) -> np.ndarray:
    """The rows that a subset file names, ascending."""
    if not file.is_file():
        raise InputError(f"{file}: no such file; a subset is a list of keys, one a line, or of numbers and commas.")
    if is_index(file):
        return index_rows(file, reader)
    wanted = {line.strip() for line in read_lines(file, errors="surrogateescape")} - {""}
    rows = np.array([row for row, key in enumerate(keys(reader)) if key in wanted], dtype=np.int64)
    if len(rows) < len(wanted):
        raise InputError(f"{file}: {len(wanted) - len(rows)} of its {len(wanted)} keys are not in the set.")
    return rows


def _read_ahead(reader: Reader, rows: np.ndarray, labels: np.ndarray, workers: int) -> Iterator[list[Record]]:
    """The records in order, with their new labels and encoded images, read on threads."""

    def read(start: int) -> list[Record]:
        part = slice(start, start + TOGETHER)
        records = reader.read(rows[part].tolist())
        return [
            replace(record, image=encoded(record), label=int(label))
            for record, label in zip(records, labels[part], strict=True)
        ]

    with ThreadPoolExecutor(workers, thread_name_prefix="convert") as pool:
        ahead: deque[Future[list[Record]]] = deque()
        for start in range(0, len(rows), TOGETHER):
            ahead.append(pool.submit(read, start))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _fingerprint(source: str, to: str, rows: np.ndarray, contents: Contents) -> str:
    """Tells a conversion from any other, also of another selection."""
    digest = hashlib.sha256(f"{Path(source).resolve()} {to} {contents.num_classes}".encode("utf-8", "surrogateescape"))
    digest.update(rows.tobytes())
    digest.update(contents.labels.tobytes())
    return digest.hexdigest()


class _Journal:
    """How far a conversion came, in a file of the folder that is being written."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._file, self._fingerprint = folder / JOURNAL, fingerprint
        self.state: dict[str, int] = {}
        if not folder.exists() or not any(folder.iterdir()):
            folder.mkdir(parents=True, exist_ok=True)
            self.save({})
            return
        try:
            saved = read_json(self._file)
            if saved["fingerprint"] != fingerprint:
                raise ValueError
            self.state = saved["state"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder}: was left half-written by another conversion; go on with that command or delete the folder."
            ) from error

    def save(self, state: dict[str, int]) -> None:
        with replace_file(self._file) as temporary:
            temporary.write_text(json.dumps({"fingerprint": self._fingerprint, "state": state}), encoding="utf-8")

    def remove(self) -> None:
        self._file.unlink()


def _pairs(source: str, pairs_file: str | None, allow_outside: bool) -> tuple[Sequence[bytes], np.ndarray]:
    """(2P encoded images, bool (P,)) with the folds one after the other."""
    if pairs_file is None and Path(source).exists() and is_verification(Path(source)):
        stored = open_verification(source, allow_outside)
        return [encoded(record) for record in stored.images], stored.issame
    if pairs_file is not None:
        pairs = read_pairs(pairs_file, source, allow_outside=allow_outside)
        faces = [read_bytes(path, LARGEST_IMAGE) for path in pairs.images if isinstance(path, Path)]
    else:
        reader = open_reader(source, allow_outside)
        pairs = make_pairs(reader.labels)
        faces = [encoded(record) for record in reader.read([int(row) for row in pairs.images if isinstance(row, int)])]
    order = np.concatenate(pairs.folds)
    sides = np.stack([pairs.first[order], pairs.second[order]], axis=1).ravel()
    return [faces[side] for side in sides], pairs.same[order]
