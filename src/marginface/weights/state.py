"""Tensors of a run on disk, in parts: written by any number of processes, read by any other. For training, `load`.

A folder with one safetensors file per process and `state.json`, the index: where the rows of every tensor are, and the
checksum of every file. The folder may come from a stranger: nothing in it is run, and nothing is allocated for a claim
that the files do not bear out.
"""

import contextlib
import errno
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor

from marginface.errors import InputError
from marginface.files import replace_file, sync
from marginface.processes import by_first, each, rank_and_size, together
from marginface.tensor_file import DTYPES, write_tensors
from marginface.untrusted import LARGEST_DESCRIPTION, parse_json, read_bytes
from marginface.weights.parts import Part, as_part, check_part, open_part

FORMAT, PICKLED = "marginface state 2", "marginface state 1"
FACTS = "state.json"
FILE = re.compile(r"part-[0-9]{1,6}\.safetensors")
UNFINISHED = re.compile(rf"\.{re.escape(FACTS)}\.\w+\.tmp")  # left by a process that was killed
FOLDER = re.compile(r"state-[0-9]{1,15}")


def write_state(
    folder: Path, tensors: Mapping[str, Tensor | Part], facts: dict[str, Any], group: dist.ProcessGroup | None = None
) -> None:
    """Called by every process: `folder` holds all or does not exist. facts: what JSON can hold, equal everywhere.

    Every process names the same tensors. Raises InputError with the reason, on all of them, where the disk is full
    or not writable; whatever lies beside `folder` is intact then.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        by_first(lambda: _make_empty(temporary), group)
        written = together(lambda: _write(temporary, tensors, *rank_and_size(group)), group)
        by_first(lambda: _finish(temporary, folder, written, facts), group)
    except (OSError, InputError) as error:
        by_first(lambda: _remove(temporary), group)
        raise _reason(folder, error) from error


class Piece(NamedTuple):
    """Rows `first` to `end` of a tensor lie in `file`."""

    first: int
    end: int
    file: str


@dataclass(frozen=True)
class SavedState:
    """What `write_state` left in `folder`. facts: as given, unchecked; shapes: of every tensor as a whole."""

    folder: Path
    facts: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    pieces: dict[str, list[Piece]]

    @classmethod
    def open(cls, folder: Path) -> "SavedState":
        """Raises InputError when it is missing, foreign, incomplete or damaged, naming the file.

        Of several processes each checks some of the files, and all learn what was found.
        """
        rank, size = rank_and_size()
        described = each(lambda: _described(folder))
        facts, files, tensors = (described[name] for name in ("facts", "files", "tensors"))
        together(lambda: _check(folder, {name: files[name] for name in sorted(files)[rank::size]}))
        pieces = each(lambda: _pieces(folder, files, tensors))
        return cls(folder, facts, {name: tuple(entry["shape"]) for name, entry in tensors.items()}, pieces)

    def read(self, tensors: Mapping[str, Tensor | Part]) -> None:
        """Fills tensors and parts in place. Called by every process, each with the parts it wants.

        Raises InputError where one is absent or has another shape or dtype.
        """
        each(lambda: self._read(tensors))

    def _read(self, tensors: Mapping[str, Tensor | Part]) -> None:
        with ExitStack() as opened:
            files: dict[str, Any] = {}
            for name, part in ((name, as_part(value)) for name, value in tensors.items()):
                if self.shapes.get(name) != part.shape:
                    found = self.shapes.get(name, "absent")
                    raise InputError(f"{self.folder} does not fit: {name} is {found} there, {part.shape} here")
                for piece in self.pieces[name]:
                    first, end = max(piece.first, part.first), min(piece.end, part.first + _length(part.rows))
                    if first >= end:
                        continue
                    if piece.file not in files:
                        files[piece.file] = opened.enter_context(open_part(self.folder / piece.file))
                    stored = files[piece.file].get_slice(name)
                    if stored.get_dtype() != DTYPES[part.rows.dtype]:
                        there, here = stored.get_dtype(), DTYPES[part.rows.dtype]
                        raise InputError(f"{self.folder} does not fit: {name} is {there} there, {here} here")
                    if part.rows.dim():
                        rows = part.rows.detach()[first - part.first : end - part.first]
                        rows.copy_(stored[first - piece.first : end - piece.first])
                    else:
                        part.rows.detach().copy_(files[piece.file].get_tensor(name))


def list_states(folder: Path) -> list[Path]:
    """Complete ones in `folder`, the newest step first: `state-12` is that of step 12.

    Symbolic links are skipped, and refused with InputError where `folder` is one: it could lead out of a run.
    """
    if folder.is_symlink():
        raise InputError(f"{folder} is a symbolic link, which is not followed; put the folder itself there")
    found = [path for path in folder.glob("state-*") if FOLDER.fullmatch(path.name) and not path.is_symlink()]
    return sorted((path for path in found if (path / FACTS).is_file()), key=_step, reverse=True)


def forget_states(folder: Path, newest: int, keep: int) -> None:
    """Removes all but the last `keep` up to step `newest`; a folder with other files in it stays, with these."""
    for path in [path for path in list_states(folder) if _step(path) <= newest][keep:]:
        _remove(path)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("state-"))


def _length(rows: Tensor) -> int:
    return len(rows) if rows.dim() else 1


def _make_empty(folder: Path) -> None:
    _remove(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _remove(folder: Path) -> None:
    """Removes the files of a state, and the folder where it is empty then. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        (folder / FACTS).unlink(missing_ok=True)  # first of all, so that half of it is not taken for the whole
        for path in [path for path in folder.iterdir() if not _is_foreign(path)]:
            path.unlink()
        folder.rmdir()


def _is_foreign(path: Path) -> bool:
    """Whether a file in a state's folder is none that `write_state` puts there."""
    return path.name != FACTS and not FILE.fullmatch(path.name) and not UNFINISHED.fullmatch(path.name)


class _Written(NamedTuple):
    """A file, its size and checksum, and of each tensor the first row in it and the shape as a whole."""

    file: str
    entry: dict[str, Any]
    tensors: dict[str, tuple[int, tuple[int, ...]]]


def _write(folder: Path, tensors: Mapping[str, Tensor | Part], rank: int, size: int) -> _Written:
    """Of one process: its parts, and some of the whole tensors, which all processes hold alike."""
    parts = {
        name: as_part(value)
        for number, (name, value) in enumerate(sorted(tensors.items()))
        if (len(value.rows) if isinstance(value, Part) else number % size == rank)
    }
    file = f"part-{rank}.safetensors"
    entry = write_tensors(folder / file, {name: part.rows for name, part in parts.items()})
    return _Written(file, entry, {name: (part.first, part.shape) for name, part in parts.items()})


def _finish(temporary: Path, folder: Path, written: list[_Written], facts: dict[str, Any]) -> None:
    tensors: dict[str, dict[str, Any]] = {}
    for one in written:
        for name, (first, shape) in one.tensors.items():
            tensors.setdefault(name, {"shape": shape, "pieces": {}})["pieces"][one.file] = first
    files = {one.file: one.entry for one in written}
    described = {"format": FORMAT, "facts": facts, "files": files, "tensors": tensors}
    text = json.dumps({"checksum": _checksum(described), **described}, allow_nan=False)
    with replace_file(temporary / FACTS) as file:
        file.write_text(text, encoding="utf-8")
    if folder.exists():  # one that could not be read, or it would have been gone on with
        if foreign := [path for path in folder.iterdir() if _is_foreign(path)]:
            raise InputError(f"{foreign[0]} was not written by marginface; move it elsewhere")
        _remove(folder)
    temporary.replace(folder)
    sync(folder.parent)


def _described(folder: Path) -> dict[str, Any]:
    """The index, every entry of which has the right type."""
    path = folder / FACTS
    try:
        if path.is_symlink():
            raise ValueError("it is a symbolic link")
        text = read_bytes(path, LARGEST_DESCRIPTION)
        described: dict[str, Any] = parse_json(text)
        if described["format"] == PICKLED:
            raise InputError(
                f"{path} was written by an earlier marginface, in a format that can run code and is no longer read; "
                f"finish or export this run with the version that wrote it"
            )
        if described["format"] != FORMAT:
            raise InputError(f"{path} is of another version of marginface ({described['format']!s:.40})")
        if json.dumps(described, allow_nan=False).encode() != text:  # such as a name twice in one object
            raise ValueError("it is not the JSON that marginface writes")
        if described.pop("checksum") != _checksum(described):
            raise InputError(f"{path} is damaged: its checksum differs")
        if not isinstance(described["facts"], dict):
            raise ValueError("it holds no facts")
        for name, entry in described["files"].items():
            if not FILE.fullmatch(name) or entry.keys() != {"bytes", "sha256"} or type(entry["bytes"]) is not int:
                raise ValueError(f"it names a file {name!r:.60}")
        for name, entry in described["tensors"].items():
            numbers = [*entry["shape"], *entry["pieces"].values()]
            if not name.isprintable() or len(name) > 1000 or any(type(n) is not int or n < 0 for n in numbers):
                raise ValueError(f"it does not describe a tensor by {name!r:.60}")
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is missing, damaged or not a checkpoint's ({error})") from error
    return described


def _check(folder: Path, files: Mapping[str, Any]) -> None:
    for name, expected in files.items():
        check_part(folder / name, expected)


def _pieces(folder: Path, files: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, list[Piece]]:
    """Where the rows of every tensor are. Raises InputError unless the files hold each exactly once, in its shape."""
    held: dict[str, dict[str, tuple[int, ...]]] = {}
    for file in files:
        with open_part(folder / file) as opened:
            held[file] = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    found = {}
    for name, entry in tensors.items():
        shape, pieces, end = tuple(entry["shape"]), [], 0
        total = shape[0] if shape else 1
        for file, first in sorted(entry["pieces"].items(), key=lambda piece: piece[1]):
            rows = held.get(file, {}).get(name)
            if rows is None or first != end or rows[1:] != shape[1:] or len(rows) != len(shape):
                raise InputError(f"{folder / FACTS} is wrong about {name}: {file} does not hold its rows from {end} on")
            end += rows[0] if rows else 1
            pieces.append(Piece(first, end, file))
        if end != total:
            raise InputError(f"{folder} is incomplete: it holds {end} rows of {name} instead of {total}")
        found[name] = pieces
    return found


def _checksum(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _reason(folder: Path, error: OSError | InputError) -> InputError:
    """In a sentence. Raised again on all processes, so what one of them says must stay one's."""
    if isinstance(error, InputError):
        told = InputError(f"{folder} could not be saved: {error}; earlier checkpoints are intact; make room and resume")
        told.elsewhere = error.elsewhere
        return told
    reason = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}.get(error.errno or 0)
    return InputError(
        f"{folder} could not be saved: {reason or error.strerror or error}; earlier checkpoints are intact; "
        f"make room and resume"
    )
