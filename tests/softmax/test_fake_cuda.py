"""The step on a CUDA device that is not there: every tensor in its place, and the host never waits for the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from fake_cuda import fake_cuda, on
from marginface.backbones import create_backbone
from marginface.backbones.preprocess import normalise
from marginface.margins import list_margins
from marginface.softmax import MarginSoftmax
from softmax_cases import margin_for

FEATURES, CLASSES = 16, 100
ENGINES: dict[str, dict[str, Any]] = {
    "dense": {"engine": "dense"},
    "streaming": {"block_size": 60, "precision": "bfloat16"},
    "sampled": {"sample_rate": 0.5, "precision": "float32"},
}
EVERYTHING: dict[str, Any] = {"label_smoothing": 0.1, "focal_gamma": 2.0, "sub_centers": 2, "block_size": 60}


def head_for(margin: str, group: Any = None, **options: Any) -> MarginSoftmax:
    options = {"unlabelled": "none", **options}
    return MarginSoftmax(FEATURES, CLASSES, margin_for(margin, CLASSES), process_group=group, **options)


def one_step(head: MarginSoftmax, rows: int = 8) -> None:
    on("cuda", head)
    x_ND = torch.randn(rows, FEATURES, device="cuda", requires_grad=True)
    loss = head(x_ND, torch.zeros(rows, dtype=torch.long, device="cuda"))
    loss.backward()
    found = [loss, x_ND.grad, head.mean_cosine, head.mean_norm]
    found += [p if head.fused else p.grad for p in head.parameters()]
    assert {x.device.type for x in found} == {"cuda"}


@contextmanager
def one_of_four() -> Iterator[Any]:
    """A process group of four, of which only this process is there."""
    dist.init_process_group("fake", rank=1, world_size=4, store=FakeStore())
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("margin", list_margins())
def test_nothing_waits(margin: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_for(margin, **ENGINES[engine])
    with fake_cuda(monkeypatch) as waits:
        one_step(head)
    assert set(waits.found) == ({"nonzero"} if engine == "dense" else set())  # the dense engine is for checks


@pytest.mark.parametrize("options", [EVERYTHING, {**EVERYTHING, "sample_rate": 0.5}])
@pytest.mark.parametrize("margin", ["arcface", "curricularface"])
def test_nothing_waits_with_every_option(margin: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_for(margin, **options)
    with fake_cuda(monkeypatch) as waits:
        one_step(head)
    assert waits.found == []


@pytest.mark.parametrize("margin", list_margins())
def test_nothing_waits_with_a_share_of_the_classes(margin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with one_of_four() as group:
        head = head_for(margin, group, block_size=15)
        assert len(head.weight) == 25
        with fake_cuda(monkeypatch) as waits:
            one_step(head)
    assert waits.found == []


def test_nothing_waits_with_a_share_of_which_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    with one_of_four() as group:
        head = head_for("arcface", group, sample_rate=0.5, label_smoothing=0.1)
        with fake_cuda(monkeypatch) as waits:
            one_step(head, rows=3)
    assert waits.found == []


def test_what_waits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_for("arcface", unlabelled="ignore")
    with fake_cuda(monkeypatch) as waits:
        one_step(head)
        assert waits.found == ["nonzero"]  # how many rows are labelled
        number = torch.ones(3, device="cuda")
        number.cpu()
        torch.arange(3).to("cuda")
        torch.arange(3).to("cuda", non_blocking=True)
        assert len(waits.found) == 3
        with pytest.raises(Exception, match="_local_scalar_dense"):
            number.sum().item()
        with pytest.raises(Exception, match="two devices"):
            number + torch.ones(3)


@pytest.mark.parametrize("way", ["fused", "drawn", "drawn, AdamW"])
def test_the_classes_move_without_waiting(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_for("arcface", sample_rate=0.5)
    with fake_cuda(monkeypatch) as waits:
        on("cuda", head)
        optimizer: torch.optim.Optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
        if way == "fused":
            head.fuse_sgd(0.1)
        else:
            if "AdamW" in way:
                optimizer = torch.optim.AdamW(head.parameters(), lr=0.1, capturable=False)
            head.update_drawn(optimizer)
        for _ in range(2):
            x_ND = torch.randn(8, FEATURES, device="cuda", requires_grad=True)
            head(x_ND, torch.zeros(8, dtype=torch.long, device="cuda")).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert waits.found == []


def test_backbone_and_head(monkeypatch: pytest.MonkeyPatch) -> None:
    head, backbone = head_for("adaface"), create_backbone("small", FEATURES).train()
    with fake_cuda(monkeypatch) as waits:
        on("cuda", head)
        on("cuda", backbone)
        parameters = [*backbone.parameters(), *head.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        images = torch.zeros(4, 112, 112, 3, dtype=torch.uint8).to("cuda", non_blocking=True)
        loss = head(backbone(normalise(images)), torch.zeros(4, dtype=torch.long, device="cuda"))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(backbone.parameters(), 5.0)
        optimizer.step()
        assert {p.grad.device.type for p in parameters if p.grad is not None} == {"cuda"}
    assert waits.found == []
