"""A CUDA device for tests, where there is none: tensors without contents that know shape, type and device.

A tensor on the wrong device or a number read back (`.item()`) raises, as torch's FakeTensorMode has it. What would
make the host wait for the device without being an error there (`nonzero`, copies in either direction) is counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch._dynamo  # FakeTensorMode imports it, and it must see the original `_make_subclass`
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from marginface.softmax import head, kernels

COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
aten = torch.ops.aten


class FakeCuda(FakeTensorMode):
    """Where C++ makes several operations of one it passes on the device it sees, "meta": see `fake_cuda`."""

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == torch.device("meta"):
            kwargs["device"] = torch.device("cuda")
        return super().dispatch(func, types, args, kwargs)


class Waits(TorchDispatchMode):
    """Names in `found` every operation for which the host would wait, and every copy between host and device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if given and not any(isinstance(x, FakeTensor) for x in given) and "device" not in kwargs:
            with unset_fake_temporarily():  # a counter in the host's memory
                return func(*args, **kwargs)
        if func is aten.nonzero.default and given[0].is_cuda:
            self.found.append("nonzero")
            return torch.arange(len(given[0]), device=given[0].device)[:, None]  # all of them
        if func.name().startswith("aten::_fused_"):  # an optimiser's step in one kernel, which torch cannot pretend
            assert {x.device.type for x in given} == {"cuda"}, func
            return None
        out = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        devices = {x.device.type for x in tensors if x.dim() > 0 or func in COPIES}
        if len(devices) > 1:
            asynchronous = kwargs.get("non_blocking", False) or (func is COPIES[1] and True in args)
            if not asynchronous or tensors[-1].device.type == "cpu":
                self.found.append(f"{func} {[tuple(x.shape) for x in tensors]}")
        return out


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Within, device "cuda" can be used, backward passes too, and `Waits` counts.

    torch's autograd asks the driver for a stream wherever C++ sees a CUDA device, so C++ is told "meta", Python "cuda".
    """
    make = torch.Tensor._make_subclass

    def without_device(cls: type, *args: Any, **kwargs: Any) -> Tensor:
        if issubclass(cls, FakeTensor):
            kwargs["dispatch_device"] = False
        return make(cls, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "_make_subclass", staticmethod(without_device))
        for kind in ("cuda", "meta"):
            patch.setattr(FakeTensor, f"is_{kind}", property(lambda x, kind=kind: x.device.type == kind), raising=False)
        patch.setattr(kernels, "native_bfloat16", lambda device: True)
        # a generator of random numbers needs the device itself
        patch.setattr(head, "draw_scores", lambda num_classes, _, device: torch.rand(num_classes, device=device))
        with FakeCuda(allow_non_fake_inputs=True), Waits() as waits:
            yield waits


def on(device: str, module: nn.Module) -> nn.Module:
    """The module with weights of the same shapes there; their contents are lost."""
    return module._apply(lambda x: torch.empty(x.shape, dtype=x.dtype, device=device))
