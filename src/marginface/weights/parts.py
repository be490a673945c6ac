"""The rows of each tensor that one process holds, and the safetensors file it writes them to. For `state.py`."""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from marginface.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
}  # fmt: skip
LARGEST_HEADER = 1 << 24  # bytes; ours need about 100 per tensor


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


def write_part(path: Path, rows: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write tensors as a safetensors file that is on the disk on return; return its "bytes" and "sha256".

    Unlike safetensors' own `save_file`, it moves one tensor at a time into the host's memory, and raises OSError
    with the system's reason where the disk takes no more.
    """
    names = sorted(rows, key=lambda name: (-rows[name].element_size(), name))  # so that each is aligned
    header, end = {}, 0
    for name in names:
        value, begin = rows[name], end
        end += value.numel() * value.element_size()
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        contents = (_content(rows[name]) for name in names)
        for data in chain([memoryview(len(text).to_bytes(8, "little") + text)], contents):
            file.write(data)
            digest.update(data)
        file.flush()
        os.fsync(file.fileno())
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _content(value: Tensor) -> memoryview:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def check_part(path: Path, expected: Mapping[str, Any]) -> None:
    """Raise InputError unless the file has the size and checksum that `write_part` returned."""
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
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or not a checkpoint's ({error})") from error
