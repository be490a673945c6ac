"""Safetensors files that anybody may have written: what is in them is known before any of it is read. Floor 1."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from marginface.errors import InputError
from marginface.untrusted import open_file

LARGEST_HEADER = 1 << 24  # bytes; a tensor needs about 100
READABLE = ("F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL")


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
        if self.dtypes[name] not in READABLE:
            raise InputError(
                f"{self.path}: {name} is stored as {self.dtypes[name]}, not as one of {', '.join(READABLE)}"
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
        with safe_open(path, "pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = {name: part.get_dtype() for name, part in slices.items()}
            yield TensorFile(path, shapes, dtypes, opened.metadata() or {}, opened)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged, or no safetensors file ({error}); copy it again") from error


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
