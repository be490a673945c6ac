"""Memory that every block of every step uses again; `head.py` owns one, the block loop and objectives take from it.

Fresh memory of this size costs more than the arithmetic in it: the system hands it out page by page, and half of
the time of an eager softmax head goes there (docs/softmax.md).

It also knows how the passes over a block run, since that decides what memory they need: operation by operation, in
tiles that stay in cache, or compiled, where what lies between two operations never reaches memory at all.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from marginface.errors import InputError
from marginface.softmax.kernels import tiles

Out = TypeVar("Out")


class Workspace:
    """Named buffers that grow to the largest shape asked for. A buffer is valid until its name is asked for again.

    compiled: passes over a block are compiled by torch.compile.
    """

    def __init__(self, compiled: bool = False) -> None:
        self.compiled = compiled
        self._buffers: dict[str, Tensor] = {}

    def get(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised contiguous tensor on the device of `like`, in its dtype unless another is given."""
        dtype, size = dtype or like.dtype, math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size or buffer.dtype != dtype or buffer.device != like.device:
            self._buffers.pop(name, None)  # the old one goes before the new one comes
            buffer = self._buffers[name] = torch.empty(size, dtype=dtype, device=like.device)
        return buffer[:size].view(shape)

    def spare(self, name: str, like: Tensor) -> Tensor | None:
        """A buffer like this tensor for what lies between two operations of a pass; compiled code needs none."""
        return None if self.compiled else self.get(name, like.shape, like)

    def tiles(self, values_BD: Tensor) -> Iterator[slice]:
        """The pieces that a pass takes the rows in; compiled code keeps a row in cache by itself."""
        yield from [slice(0, len(values_BD))] if self.compiled else tiles(values_BD)

    def run(self, function: Callable[..., Out], *arguments: Any) -> Out:
        """A pass over a block: `function`, or what torch.compile makes of it."""
        if not self.compiled:
            return function(*arguments)
        from torch._dynamo.exc import BackendCompilerFailed  # slow to import, and seldom needed

        compiled: Callable[..., Out] = compile_pass(function)
        try:
            return compiled(*arguments)
        except BackendCompilerFailed as error:
            raise InputError(
                "compile=True of the softmax needs a C++ compiler on a CPU (such as g++) and the package triton on a "
                f"GPU; install it, or leave the option out ({error.inner_exception})."
            ) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> "Workspace":
        return Workspace(self.compiled)

    def __reduce__(self) -> tuple[type["Workspace"], tuple[bool]]:
        return Workspace, (self.compiled,)  # contents are never worth saving


@functools.cache
def compile_pass(function: Callable[..., Out]) -> Callable[..., Out]:
    """For blocks of any length: the last one is shorter, and the rows of a batch that are labelled vary."""
    return torch.compile(function, dynamic=True)
