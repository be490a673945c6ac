"""Safetensors files: written, and read where anybody may have made them, knowing first what is in them. Floor 1."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from marginface.errors import InputError
from marginface.filenames import utf8_name
from marginface.untrusted import open_file

LARGEST_HEADER = 1 << 24  # bytes; a tensor needs about 100
DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
}  # fmt: skip


@dataclass(frozen=True)
class TensorFile:
    """An open file. shapes, dtypes: of every tensor, the latter as the format spells them. metadata: texts."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]
    _file: Any

    def read(self, name: str) -> Tensor:
        """A tensor on the CPU. Raises InputError where it is stored as something that weights are not."""
        if self.dtypes[name] not in DTYPES.values():
            raise InputError(
                f"{self.path}: {name} is stored as {self.dtypes[name]}, not as one of {', '.join(DTYPES.values())}"
            )
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    @torch.no_grad()
    def fill(self, network: nn.Module) -> None:
        """Copy into a network of the same names and shapes. Raises InputError as `read`, and for what is not finite."""
        state: dict[str, Tensor] = network.state_dict()
        for name, value in state.items():
            stored = self.read(name)
            if stored.is_floating_point() != value.is_floating_point():
                raise InputError(f"{self.path}: {name} is stored as {self.dtypes[name]}, not as {value.dtype}")
            value.copy_(stored)
        check_finite(state, self.path)


@contextmanager
def open_tensors(path: str | Path) -> Iterator[TensorFile]:
    """Within, the file is mapped into memory.

    Its offsets, shapes and dtypes have been compared with its size. Raises OSError where it cannot be opened, and
    InputError where it is not regular, damaged, or its header larger than LARGEST_HEADER.
    """
    path = Path(path)
    with open_file(path) as file:
        if int.from_bytes(file.read(8), "little") > LARGEST_HEADER:
            raise InputError(f"{path} is damaged, or no safetensors file (its header is too large); copy it again")
    try:
        with utf8_name(path) as name, safe_open(name, "pt") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118  # no mapping
            shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
            dtypes = {key: part.get_dtype() for key, part in slices.items()}
            yield TensorFile(path, shapes, dtypes, opened.metadata() or {}, opened)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged, or no safetensors file ({error}); copy it again") from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Write a safetensors file that is on the disk on return; return its "bytes" and "sha256".

    Unlike safetensors' own `save_file`, it moves one tensor at a time into the host's memory, and raises OSError
    with the system's reason where the disk takes no more.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that each is aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        value, begin = tensors[name], end
        end += value.numel() * value.element_size()
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        contents = (_content(tensors[name]) for name in names)
        for data in chain([memoryview(len(text).to_bytes(8, "little") + text)], contents):
            file.write(data)
            digest.update(data)
        file.flush()
        os.fsync(file.fileno())
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _content(value: Tensor) -> memoryview:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def check_finite(tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Raise InputError, naming the tensor, for NaN, infinity or a negative variance. where: the file, for messages."""
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.numel():
            continue
        low, high = torch.aminmax(value)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise InputError(f"{where}: {name} holds NaN or infinity, so training diverged; take an earlier checkpoint")
        if name.endswith("running_var") and low < 0:
            raise InputError(f"{where}: {name} holds a negative variance, so the file is damaged; take another")
