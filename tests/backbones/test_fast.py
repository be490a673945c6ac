"""The fast way keeps the embeddings, is not taken where it would not, and makes nothing for a handful of images."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from marginface.backbones import create_backbone, fast
from marginface.backbones.fast import BFLOAT16, COMPILED, FLOAT32, OPENVINO, FastPath
from marginface.backbones.openvino_run import OpenVinoRun, from_torch


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with bfloat16, whose cache is empty, without OpenVINO."""
    monkeypatch.setattr(fast, "native_bfloat16", lambda _: True)
    monkeypatch.setitem(sys.modules, "openvino", None)
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
    few = fast.COMPILE_FROM // fast.RECOMPILE
    path.network(X, few)
    assert not compiled  # no earlier run left anything behind
    path.network(X, fast.COMPILE_FROM)
    assert (len(compiled), path.name) == (1, COMPILED)
    path.network(X[:1], fast.COMPILE_FROM)  # the last, smaller batch
    assert len(compiled) == 1
    again = FastPath(network())
    again.network(X, few)
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


@pytest.fixture
def openvino(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and faster than torch."""
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr(fast, "is_faster", lambda network, other, x: True)


@torch.no_grad()
@pytest.mark.parametrize("precision", ["bf16", "f32"])
def test_openvino_is_for_many_images_and_any_batch(
    precision: str, openvino: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "native_bfloat16", lambda _: precision == "bf16")
    path = FastPath(network())
    path.network(X, fast.OPENVINO_FROM - 1)
    assert (path.name, path.seconds) == (BFLOAT16 if precision == "bf16" else FLOAT32, 0)
    for x in (X, X[:1], X.repeat(3, 1, 1, 1), X.flip(-1)):
        found = path.network(x, fast.OPENVINO_FROM)(x)
        difference = (found - path.backbone(x)).abs().max() / found.abs().max()
        assert difference < (0.03 if precision == "bf16" else 1e-5)
    assert path.name == OPENVINO[precision]
    assert path.seconds > 0


@torch.no_grad()
def test_openvino_is_not_taken_where_it_is_slower_or_changes_the_embeddings(
    openvino: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "is_faster", lambda network, other, x: False)
    path = FastPath(network())
    path.network(X, fast.OPENVINO_FROM)
    assert path.name == BFLOAT16
    monkeypatch.setattr(fast, "is_faster", lambda network, other, x: True)
    monkeypatch.setattr(fast, "from_torch", lambda backbone, x: Path("other"))
    monkeypatch.setattr(
        fast, "OpenVinoRun", lambda graph, precision: lambda x: torch.linspace(-1, 1, 16).repeat(len(x), 1)
    )
    path = FastPath(network())
    path.network(X, fast.OPENVINO_FROM)
    assert path.name == BFLOAT16


@torch.no_grad()
def test_compiled_code_must_beat_openvino(openvino: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: compiled.append(network) or (lambda x: network(x)))
    path = FastPath(network())
    path.network(X, fast.COMPILE_FROM)
    assert (len(compiled), path.name) == (0, OPENVINO["bf16"])  # what it might win is less than it costs
    monkeypatch.setattr(fast, "is_faster", lambda network, other, x: False)
    path.network(X, fast.COMPILE_PAST_OPENVINO)
    assert (len(compiled), path.name) == (1, OPENVINO["bf16"])
    assert not (tmp_path / "compiled").exists()


@torch.no_grad()
def test_two_threads_may_ask_openvino_at_once(openvino: None) -> None:
    run = OpenVinoRun(from_torch(network(), X[:1]), threads=2)
    many = X.repeat(16, 1, 1, 1)
    found: list[Tensor] = []

    def ask() -> None:
        for _ in range(5):
            found.append(run(many))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(torch.equal(other, found[0]) for other in found)


def test_faster_means_by_more_than_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(fast, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def taking(seconds: float) -> Callable[[Tensor], Tensor]:
        def network(x: Tensor) -> Tensor:
            clock[0] += seconds
            return x

        return network

    quick, slow, alike = taking(0.001), taking(0.01), taking(0.0104)
    assert fast.is_faster(quick, slow, X)
    assert not fast.is_faster(slow, quick, X)
    assert not fast.is_faster(slow, alike, X)
    assert fast.is_faster(slow, taking(0.0106), X)


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


def test_another_number_of_threads_makes_it_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    path = FastPath(network())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    assert path.is_stale()
