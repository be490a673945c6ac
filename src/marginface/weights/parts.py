"""The rows of each tensor that one process holds, and the safetensors file they are read from. For `state.py`."""

import hashlib
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from safetensors import SafetensorError, safe_open
from torch import Tensor

from marginface.errors import InputError
from marginface.filenames import utf8_name
from marginface.tensor_file import LARGEST_HEADER

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Part:
    """Rows `first` to `first + len(rows)` of a tensor of `total` rows; the others belong to other processes."""

    rows: Tensor
    first: int
    total: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor as a whole."""
        return (self.total, *self.rows.shape[1:]) if self.rows.dim() else ()


def own(value: Tensor) -> Tensor:
    """What this process has of a tensor that FSDP split; any other as it is."""
    return value.to_local() if is_split(value) else value


def own_rows(value: Tensor) -> Tensor | Part:
    """The same with its place: FSDP gives every process as many rows as the first has, the last ones fewer or none."""
    if not is_split(value):
        return value
    total, size = value.shape[0], value.device_mesh.size()
    return Part(value.to_local(), min(-(-total // size) * value.device_mesh.get_rank(), total), total)


def is_split(value: Tensor) -> "TypeGuard[DTensor]":
    """Whether FSDP gave this process only a part of the tensor."""
    module = sys.modules.get("torch.distributed.tensor")  # slow to import; without it there are none
    return module is not None and isinstance(value, module.DTensor)


def as_part(value: Tensor | Part) -> Part:
    """A whole tensor too is a part: all of its rows. A scalar counts as one row."""
    return value if isinstance(value, Part) else Part(value, 0, value.shape[0] if value.dim() else 1)


def check_part(path: Path, expected: Mapping[str, Any]) -> None:
    """Raise InputError unless the file has the size and checksum that `write_tensors` returned."""
    try:
        status = path.lstat()
    except OSError as error:
        raise InputError(f"{path} is missing") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file: copy the checkpoint again, without symbolic links")
    if status.st_size != expected["bytes"]:
        raise InputError(f"{path} has {status.st_size} bytes instead of {expected['bytes']}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
            raise InputError(f"{path} is damaged: its checksum differs")
        file.seek(0)
        if int.from_bytes(file.read(8), "little") > LARGEST_HEADER:
            raise InputError(f"{path} is not a checkpoint's: its header is larger than {LARGEST_HEADER:,} bytes")


@contextmanager
def open_part(path: Path) -> Iterator[Any]:
    """safetensors' view of a file, mapped into memory; within, what it finds wrong is raised as InputError.

    The header's offsets, shapes and dtypes have been compared with the file's size before anything is allocated.
    """
    try:
        with utf8_name(path) as name, safe_open(name, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or not a checkpoint's ({error})") from error
