"""The fast way keeps the embeddings, is not taken where it would not, and compiles for many images only."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from marginface.backbones import create_backbone, fast
from marginface.backbones.fast import BFLOAT16, COMPILED, FLOAT32, FastPath


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with bfloat16, whose cache is empty."""
    monkeypatch.setattr(fast, "native_bfloat16", lambda _: True)
    monkeypatch.setattr(fast, "marker", lambda *_: tmp_path / "compiled" / "marker")


def network() -> nn.Module:
    torch.manual_seed(0)
    return create_backbone("small", num_features=16, width=4).eval()


X = torch.linspace(-1, 1, 2 * 3 * 112 * 112).view(2, 3, 112, 112)


@torch.no_grad()
def test_bfloat16_is_taken_where_it_keeps_the_embeddings(native: None) -> None:
    backbone = network()
    path = FastPath(backbone)
    found = path.network(X, 2)(X)
    assert path.name == BFLOAT16
    assert found.dtype == torch.float32
    assert nn.functional.cosine_similarity(found, backbone(X)).min() >= 0.9995
    assert all(p.dtype == torch.float32 for p in backbone.parameters())  # the model itself stays as it was


@torch.no_grad()
def test_float32_where_bfloat16_does_not_exist_or_differs(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fragile(nn.Module):
        """The small difference of large numbers, which bfloat16 loses."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.shift = nn.Parameter(torch.tensor([1000.0, 1001.0, 999.0, 1000.5]))

        def forward(self, x: Tensor) -> Tensor:
            shifted = self.conv(x).mean((2, 3)) + self.shift.to(self.conv.weight.dtype)
            return shifted.float() - 1000

    path = FastPath(Fragile().eval())
    assert path.network(X, 2) is path.backbone
    assert path.name == FLOAT32
    monkeypatch.setattr(fast, "native_bfloat16", lambda _: False)
    path = FastPath(network())
    assert path.network(X, 2) is path.backbone


@torch.no_grad()
def test_compiling_is_for_many_images_and_for_the_full_batch(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: compiled.append(network) or (lambda x: network(x)))
    path = FastPath(network())
    path.network(X, fast.RECOMPILE_FROM)
    assert not compiled  # no earlier run left anything behind
    path.network(X, fast.COMPILE_FROM)
    assert (len(compiled), path.name) == (1, COMPILED)
    path.network(X[:1], fast.COMPILE_FROM)  # the last, smaller batch
    assert len(compiled) == 1
    again = FastPath(network())
    again.network(X, fast.RECOMPILE_FROM)
    assert (len(compiled), again.name) == (2, COMPILED)


@torch.no_grad()
def test_without_a_compiler_the_plain_way_remains(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        def fail(x: Tensor) -> Tensor:
            raise RuntimeError("no C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    path = FastPath(network())
    path.network(X, fast.COMPILE_FROM)(X)
    assert path.name == BFLOAT16


def test_new_weights_make_it_stale() -> None:
    backbone = network()
    path = FastPath(backbone)
    assert not path.is_stale()
    with torch.no_grad():
        next(backbone.parameters()).add_(1)
    assert path.is_stale()
    path = FastPath(backbone)
    backbone.double()
    assert path.is_stale()
