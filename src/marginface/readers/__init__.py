"""Data sets of every layout as one kind of thing: `open_reader(path)` recognises what lies there."""

import os
from pathlib import Path

from marginface.errors import InputError
from marginface.readers.archive import ArchiveReader
from marginface.readers.archive_index import is_tar, is_zip
from marginface.readers.base import Reader, Record
from marginface.readers.containment import Bounds
from marginface.readers.folder import FolderReader, holds_identities
from marginface.readers.hdf5 import HDF5Reader, is_hdf5
from marginface.readers.image_walk import check_not_empty, data_files
from marginface.readers.list_file import is_list
from marginface.readers.lists import ListReader
from marginface.readers.lmdb_set import LMDBReader, lmdb_file
from marginface.readers.recordio import RecordIOReader, is_recordio
from marginface.readers.remote import is_pattern, is_remote, is_url_list, open_pattern, open_remote, open_url_list
from marginface.readers.shards import ShardsReader, is_shards
from marginface.readers.subset import FEWEST, SubsetReader, close_gaps, index_rows, is_index
from marginface.readers.table import TableReader
from marginface.readers.table_parts import is_table
from marginface.readers.verification import is_verification
from marginface.untrusted import read_start

__all__ = ["Reader", "Record", "open_reader"]

UNDERSTOOD = (
    "a folder with one subfolder of images for each identity or a zip or tar archive of it, a RecordIO set"
    " (train.rec), Parquet or a folder of Hugging Face datasets, HDF5, LMDB, WebDataset shards, a list of images and"
    " labels, AdaFace's index of a subset beside its images, or synthetic:identities=500,images=20"
)
PACKED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"(\xb5/\xfd": "unzstd"}


def open_reader(spec: str | os.PathLike[str], allow_outside: bool = False) -> Reader:
    """The reader for what lies at `spec`, recognised by its content and not by its name.

    The set is read from its own folder, a list from the folder of its images (see `listed_images`): symbolic links,
    names in lists and storage of HDF5 that lead elsewhere are refused, unless `allow_outside`.

    A URL of WebDataset shards, or a text file of such URLs, is fetched first (see `remote`).
    `synthetic` and `synthetic:identities=500,images=20,seed=0,first=0` make the built-in faces.

    Labels have no gaps, whatever the files number the people by; `class_names` keeps what they wrote.

    Raises InputError if nothing lies there, nobody understands it, or it holds one identity only.
    """
    return close_gaps(_open(spec, allow_outside), str(spec))


def _open(spec: str | os.PathLike[str], allow_outside: bool) -> Reader:
    if str(spec).partition(":")[0] == "synthetic":
        return _synthetic(str(spec).partition(":")[2])
    if is_remote(str(spec)):
        return open_remote(str(spec))
    path = Path(spec)
    if not path.exists() and is_pattern(str(spec)):
        return open_pattern(str(spec), allow_outside)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give {UNDERSTOOD}.")
    return _open_folder(path, allow_outside) if path.is_dir() else _open_file(path, allow_outside)


def _open_folder(path: Path, allow_outside: bool) -> Reader:
    bounds = Bounds(path, allow_outside=allow_outside)
    named = data_files(path, "*.rec")
    records = [file for file in named if is_recordio(file)]
    if named and not records:
        raise InputError(f"{named[0]}: does not start as RecordIO does; copy or fetch it again.")
    if path / "train.rec" in records or len(records) == 1:
        record = path / "train.rec" if path / "train.rec" in records else records[0]
        bounds.check(record)
        return RecordIOReader(record, allow_outside)
    if records:
        names = ", ".join(file.name for file in records)
        raise InputError(f"{path}: holds several RecordIO files ({names}); give the path of one of them.")
    if is_table(path):
        return TableReader(path, allow_outside)
    if lmdb_file(path):
        return LMDBReader(path, allow_outside)
    if is_shards(path):
        return ShardsReader(path, allow_outside=allow_outside)
    if holds_identities(path / "imgs", bounds):
        return FolderReader(path / "imgs", allow_outside)
    return FolderReader(path, allow_outside)


def _open_file(path: Path, allow_outside: bool) -> Reader:
    check_not_empty(path)
    if is_recordio(path):
        return RecordIOReader(path, allow_outside)
    if is_tar(path) and is_shards(path):
        return ShardsReader(path)
    if is_zip(path) or is_tar(path):
        return ArchiveReader(path)
    if is_table(path):
        return TableReader(path)
    if is_hdf5(path):
        return HDF5Reader(path, allow_outside)
    if lmdb_file(path):
        return LMDBReader(path)
    start = read_start(path, 8)
    for magic, command in PACKED.items():
        if start.startswith(magic):
            raise InputError(
                f"{path}: is compressed as a whole, so that no image can be read alone; run {command} on it."
            )
    if is_verification(path):
        raise InputError(f"{path}: is a verification set, which has no identities to learn; evaluate on it.")
    if is_url_list(path):
        return open_url_list(path, allow_outside)
    if is_index(path):
        return _open_index(path, allow_outside)
    if is_list(path):
        return ListReader(path, allow_outside)
    raise InputError(f"{path}: not a data set that marginface understands; give {UNDERSTOOD}.")


def _open_index(path: Path, allow_outside: bool) -> Reader:
    """The images that AdaFace's subset file names, in the set that lies in the same folder."""
    folder = path.parent / "imgs"
    found = holds_identities(folder, Bounds(path, allow_outside=allow_outside))
    reader = FolderReader(folder, allow_outside) if found else _open_folder(path.parent, allow_outside)
    try:
        return SubsetReader(reader, index_rows(path, reader), FEWEST)
    except InputError as error:
        raise InputError(f"{error}" if str(path) in str(error) else f"{path}: {error}") from error


def _synthetic(options: str) -> Reader:
    """Parses `identities=500,images=20,seed=0,first=0`."""
    numbers = {"identities": 500, "images": 20, "seed": 0, "first": 0}
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        if name not in numbers or not value.isdecimal():
            raise InputError(
                f"synthetic:{options}: {option!r} is not understood;"
                f" give {', '.join(numbers)} as whole numbers, such as synthetic:identities=500,images=20."
            )
        numbers[name] = int(value)

    from marginface.readers.synthetic import SyntheticFaces  # the renderer is only loaded if it is asked for

    return SyntheticFaces(
        numbers["identities"], numbers["images"], seed=numbers["seed"], first_identity=numbers["first"]
    )
