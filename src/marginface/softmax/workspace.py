"""Memory that every block of every step uses again; `head.py` owns one, the block loop and objectives take from it.

Fresh memory of this size costs more than the arithmetic in it: the system hands it out page by page, and half of
the time of an eager softmax head goes there (docs/softmax.md).
"""

import math
from typing import Any

import torch
from torch import Tensor


class Workspace:
    """Named buffers that grow to the largest shape asked for. A buffer is valid until its name is asked for again."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def get(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised contiguous tensor on the device of `like`, in its dtype unless another is given."""
        dtype, size = dtype or like.dtype, math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size or buffer.dtype != dtype or buffer.device != like.device:
            self._buffers.pop(name, None)  # the old one goes before the new one comes
            buffer = self._buffers[name] = torch.empty(size, dtype=dtype, device=like.device)
        return buffer[:size].view(shape)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Workspace":
        return Workspace()

    def __reduce__(self) -> tuple[type["Workspace"], tuple[()]]:
        return Workspace, ()  # contents are never worth saving
