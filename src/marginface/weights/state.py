"""Tensors of a run on disk, in parts: written by any number of processes, read by any other. For training, `load`.

torch.distributed.checkpoint does the parts. Around it: a folder that is whole or absent, checksums, no pickle but of
known names. Shape legend: a tensor of T rows of which a process holds some.
"""

import errno
import hashlib
import json
import pickle
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, EnumMeta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_parts
from torch.distributed.checkpoint.state_dict_saver import save as save_parts
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from marginface.errors import InputError
from marginface.files import replace_file, sync
from marginface.processes import by_first, rank_and_size, together
from marginface.weights.parts import Part, ReadParts, WriteParts

FORMAT = "marginface state 1"
FACTS, METADATA = "state.json", ".metadata"
KNOWN = re.compile(
    r"torch\.distributed\.checkpoint\.(metadata \w+|filesystem _StorageInfo|filesystem _StoragePrefix)"
    r"|torch (Size|(b?float|u?int|complex)\d+|bool)|torch\.serialization _get_layout|collections OrderedDict"
)


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
        _save(temporary, tensors, group)
        rank = rank_and_size(group)[0]
        sums = together(lambda: {file.name: _digest(file) for file in temporary.glob(f"__{rank}_*")}, group)
        files = {name: entry for part in sums for name, entry in part.items()}
        by_first(lambda: _finish(temporary, folder, files, facts), group)
    except (OSError, InputError) as error:
        by_first(lambda: shutil.rmtree(temporary, ignore_errors=True), group)
        raise _reason(folder, error) from error


@dataclass(frozen=True)
class SavedState:
    """What `write_state` left in `folder`. facts: as given; shapes: of every tensor as a whole."""

    folder: Path
    facts: dict[str, Any]
    files: dict[str, dict[str, Any]]
    shapes: dict[str, torch.Size]

    @classmethod
    def open(cls, folder: Path) -> "SavedState":
        """Raises InputError when it is missing, foreign, incomplete or damaged, naming the file.

        Of several processes each checks some of the files, and all learn what was found.
        """
        rank, size = rank_and_size()
        facts, files = _described(folder)
        together(lambda: _check(folder, {name: files[name] for name in sorted(files)[rank::size]}))
        entries = read_metadata(folder).state_dict_metadata
        shapes = {name: entry.size for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
        return cls(folder, facts, files, shapes)

    def read(self, tensors: dict[str, Tensor | Part]) -> None:
        """Fills tensors and parts in place. Called by every process, each with the parts it wants."""
        try:
            _hide_that_it_is_one_process()
            load_parts(tensors, storage_reader=_Reader(self.folder), planner=ReadParts())
        except CheckpointException as error:
            raise InputError(f"{self.folder} cannot be read: {_first(error)}") from error


def list_states(folder: Path) -> list[Path]:
    """Complete ones in `folder`, the newest step first: `state-12` is that of step 12."""
    found = [path for path in folder.glob("state-*") if path.name[6:].isdigit() and (path / FACTS).is_file()]
    return sorted(found, key=lambda path: int(path.name[6:]), reverse=True)


def forget_states(folder: Path, newest: int, keep: int) -> None:
    """Removes all but the last `keep` up to step `newest`."""
    for path in [path for path in list_states(folder) if int(path.name[6:]) <= newest][keep:]:
        (path / FACTS).unlink(missing_ok=True)  # first of all, so that half of it is not taken for the whole
        shutil.rmtree(path, ignore_errors=True)


def read_metadata(folder: Path) -> Metadata:
    """torch's own index of the parts; names other than those it consists of are refused."""
    try:
        with (folder / METADATA).open("rb") as file:
            metadata: Metadata = _KnownNames(file).load()
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise InputError(f"{folder / METADATA} is damaged or not a checkpoint's ({error})") from error
    entries = metadata.state_dict_metadata.values() if isinstance(metadata, Metadata) else [None]
    if not all(isinstance(entry, TensorStorageMetadata) for entry in entries):
        raise InputError(f"{folder / METADATA} names something other than tensors, so it is not ours")
    metadata.storage_meta = StorageMeta()
    return metadata


class _KnownNames(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        if not KNOWN.fullmatch(f"{module} {name}"):
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def _member(kind: Any, name: str) -> Enum:
    """How Python before 3.11.4 writes a member of an enumeration: as its attribute. No other attribute is given out."""
    if not (isinstance(kind, EnumMeta) and name in kind.__members__):
        raise pickle.UnpicklingError(f"it asks {kind!r} for {name}")
    member: Enum = kind.__members__[name]
    return member


class _Reader(FileSystemReader):
    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        return read_metadata(Path(self.path))


class _Writer(FileSystemWriter):
    def storage_meta(self) -> None:  # a path in it would be nobody's business after the folder has moved
        return None

    def write_data(self, *plan: Any) -> Future[list[WriteResult]]:
        try:
            written: Future[list[WriteResult]] = super().write_data(*plan)
            return written
        except RuntimeError as error:  # torch's own, on top of the reason
            reason: BaseException | None = error
            while reason is not None and not isinstance(reason, OSError):
                reason = reason.__context__
            raise reason or error from None


def _save(folder: Path, tensors: Mapping[str, Tensor | Part], group: dist.ProcessGroup | None) -> None:
    try:
        _hide_that_it_is_one_process()
        planner = WriteParts(*rank_and_size(group))
        save_parts(dict(tensors), storage_writer=_Writer(folder), planner=planner, process_group=group)
    except CheckpointException as error:
        raise _first(error) from error


def _hide_that_it_is_one_process() -> None:
    """Not by `catch_warnings`, which belongs to the whole process: states are also written by a thread."""
    warnings.filterwarnings("ignore", "torch.distributed is disabled")


def _first(error: CheckpointException) -> OSError | InputError:
    """What the first process that failed says; a fault of the program is raised as it is."""
    first = next(iter(error.failures.values()))[0]
    if isinstance(first, OSError | InputError):
        return first
    raise first


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _finish(temporary: Path, folder: Path, files: dict[str, Any], facts: dict[str, Any]) -> None:
    files[METADATA] = _digest(temporary / METADATA)
    described = {"format": FORMAT, "facts": facts, "files": files}
    with replace_file(temporary / FACTS) as file:
        file.write_text(json.dumps({"checksum": _checksum(described), **described}, indent=1), encoding="utf-8")
    if folder.exists():  # one that could not be read, or it would have been gone on with
        shutil.rmtree(folder)
    temporary.replace(folder)
    sync(folder.parent)


def _described(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    path = folder / FACTS
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        claimed = described.pop("checksum")
        if described["format"] != FORMAT:
            raise InputError(f"{path} is of another version of marginface ({described['format']})")
        if claimed != _checksum(described):
            raise InputError(f"{path} is damaged: its checksum differs")
        return described["facts"], described["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is missing, damaged or not a checkpoint's ({error})") from error


def _checksum(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _check(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    for path, expected in ((folder / name, entry) for name, entry in files.items()):
        if not path.is_file():
            raise InputError(f"{path} is missing")
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise InputError(f"{path} has {size} bytes instead of {expected['bytes']}")
        if _digest(path) != expected:
            raise InputError(f"{path} is damaged: its checksum differs")


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
