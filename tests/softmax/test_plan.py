"""The prediction of `marginface plan` against what small runs really allocate."""

import os
import subprocess
import sys
from typing import ClassVar

import pytest
import torch

from marginface.backbones import create_backbone
from marginface.errors import InputError
from marginface.margins import create_margin
from marginface.softmax import head, plan
from marginface.softmax.plan import HeadShape, activation_bytes, head_memory
from marginface.softmax.sharded import Shards, shard_range

RUN = """
import sys, torch
from marginface.margins import create_margin
from marginface.softmax import MarginSoftmax
torch.set_num_threads(1)

def step(rows, classes, options, fused):
    head = MarginSoftmax(128, classes, create_margin("arcface"), **options)
    optimizer = torch.optim.SGD([head.weight], lr=0.1, momentum=0.9)
    if fused:
        head.fuse_sgd(lr=0.1)
    elif head.sample_rate < 1:
        head.update_drawn(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        head(torch.randn(rows, 128, requires_grad=True), torch.randint(0, classes, (rows,))).backward()
        optimizer.step()

def peak():  # not ru_maxrss, which a process inherits from its parent
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

options, fused = eval(sys.argv[1])
step(16, 100, options, fused)
before = peak()
step(256, 100_000, options, fused)
print(peak() - before)
"""
CASES = {
    "fused, float32": ({"precision": "float32"}, True),
    "fused, bfloat16": ({"precision": "bfloat16"}, True),
    "optimiser apart": ({"precision": "float32"}, False),
    "sampled": ({"precision": "float32", "sample_rate": 0.1}, True),
    "sampled, optimiser apart": ({"precision": "float32", "sample_rate": 0.5}, False),
}


@pytest.mark.skipif(sys.platform != "linux", reason="operating system: reads the peak from /proc")
@pytest.mark.parametrize("case", CASES)
def test_memory_of_a_real_run(case: str) -> None:
    options, fused = CASES[case]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "0"}
    words = [sys.executable, "-c", RUN, repr((options, fused))]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, env=environment)
    shape = HeadShape(
        100_000,
        128,
        batch=256,
        sample_rate=options.get("sample_rate", 1.0),
        fused=fused,
        bfloat16=options["precision"] == "bfloat16",
        device="cpu",
    )
    predicted = sum(head_memory(shape).values())
    assert int(done.stdout) * 1024 == pytest.approx(predicted, rel=0.12)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
def test_activations_of_a_real_forward_pass(name: str, mixed: bool) -> None:
    backbone = create_backbone(name, 512).train()
    weights = {p.untyped_storage()._cdata for p in backbone.parameters()}
    kept, copies = {}, {}  # bytes by storage; a 16-bit copy of a weight has its shape

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            is_copy = tensor.dtype == torch.bfloat16 and tensor.shape in shapes
            (copies if is_copy else kept)[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    alive, shapes = [], {p.shape for p in backbone.parameters()}
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
    ):
        embeddings = backbone(torch.randn(3, 3, 112, 112))
    assert embeddings.shape == (3, 512)
    assert embeddings.dtype == torch.float32
    assert sum(kept.values()) / 3 == pytest.approx(activation_bytes(name, 512, mixed), rel=0.02)
    assert bool(copies) == mixed
    assert sum(copies.values()) <= 2 * sum(p.numel() for p in backbone.parameters())


class CountingShards(Shards):
    """One rank of four that talks to nobody and counts what a ring would have it send."""

    sent: ClassVar[dict[str, float]] = {}

    def __init__(self, num_classes: int, process_group: object = None) -> None:
        self.group, self.size, self.rank = process_group, 4, 0
        self.start, self.stop = shard_range(num_classes, 0, 4)

    def count(self, name: str, x: torch.Tensor, share: float) -> torch.Tensor:
        self.sent[name] = self.sent.get(name, 0) + share * x.numel() * x.element_size()
        return x

    def gather(self, x_N: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.count("embeddings and labels", x_N, 3)] * 4)

    def max(self, x: torch.Tensor) -> torch.Tensor:
        return self.count("sums of the softmax", x, 2 * 3 / 4)

    sum = max

    def sum_own_rows(self, x_GD: torch.Tensor) -> torch.Tensor:
        return self.count("gradient of embeddings", x_GD, 3 / 4)[: len(x_GD) // 4]


def test_traffic_of_a_real_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "Shards", CountingShards)
    CountingShards.sent.clear()
    subject = head.MarginSoftmax(32, 1000, create_margin("arcface"))
    subject(torch.randn(24, 32, requires_grad=True), torch.randint(0, 1000, (24,))).backward()
    predicted = plan.wire_bytes(HeadShape(1000, 32, batch=24, devices=4), parameters=0)
    assert predicted.pop("backbone gradient") == 0
    assert CountingShards.sent == predicted


def test_scales_as_the_formulas_say() -> None:
    one = plan.plan(HeadShape(1_000_000), "mobilefacenet")
    eight = plan.plan(HeadShape(1_000_000, devices=8), "mobilefacenet")
    assert one.memory["class weights"] == 8 * eight.memory["class weights"] == 1_000_000 * 512 * 4
    assert one.memory["class gradient"] == 0
    assert one.flops == eight.flops
    assert one.flops["head"] == 8 * 512 * 1_000_000
    assert set(one.wire.values()) == {0}
    tenth = plan.plan(HeadShape(1_000_000, sample_rate=0.1), "mobilefacenet")
    assert tenth.flops["head"] * 10 == one.flops["head"]
    apart = HeadShape(1_000_000, fused=False, optimizer="adamw")
    assert head_memory(apart)["class gradient"] * 2 == head_memory(apart)["class optimiser"]


def test_a_backbone_that_is_split() -> None:
    """Held against two processes once: ViT(512, 8 blocks), batch 2, 833 MiB at the peak where this says 886."""
    shape = HeadShape(1000, devices=8)
    copied, split = (plan.plan(shape, "vit-tiny", shard_backbone=way) for way in (False, True))
    for part in ("weights", "optimiser"):
        assert split.memory[f"backbone {part}"] == pytest.approx(copied.memory[f"backbone {part}"] / 8, rel=1e-6)
    assert split.memory["backbone gradient"] == pytest.approx(copied.memory["backbone gradient"] / 16, rel=1e-6)
    sent = [sum(size for part, size in found.wire.items() if part.startswith("backbone")) for found in (copied, split)]
    assert sent[1] == pytest.approx(1.5 * sent[0], rel=1e-6)
    dim, tokens = 256, 144
    block, layer = 12 * dim**2 + 10 * dim, dim * dim * tokens  # norms, biases; and the layer over all tokens
    others = plan.piece_bytes("vit-tiny") / 4 - (block + layer) - 2 * layer
    assert 0 < others < 2 * 300_000  # patches, places, the embedding layer
    assert "backbone pieces" not in plan.plan(HeadShape(1000), "small", shard_backbone=True).memory  # one device


def test_time_is_work_over_rate() -> None:
    shape = HeadShape(1_000_000, devices=8, batch=64)
    found = plan.plan(shape, "mobilefacenet")
    times = found.milliseconds(batch=64, teraflops=2.0, gigabytes=4.0)
    assert times["arithmetic of the head"] == pytest.approx(64 * 8 * 512 * 1e6 / 2e12 * 1e3)
    assert times["sending: gradient of embeddings"] == pytest.approx(7 * 64 * 512 * 4 / 4e9 * 1e3)
    assert len(times) == len(found.flops) + len(found.wire)


def test_bad_shapes() -> None:
    with pytest.raises(InputError, match="at least 1"):
        HeadShape(0)
    with pytest.raises(InputError, match="optimizer must be one of sgd, adamw"):
        HeadShape(10, optimizer="lion")
