"""The prediction of `marginface plan` against what small runs really allocate."""

import os
import subprocess
import sys

import pytest
import torch

from marginface.backbones import create_backbone
from marginface.errors import InputError
from marginface.softmax import plan
from marginface.softmax.plan import HeadShape, activation_bytes, head_memory

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
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
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


def test_activations_of_a_real_forward_pass() -> None:
    backbone = create_backbone("mobilefacenet", 512).train()
    weights = {p.data_ptr() for p in backbone.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embeddings = backbone(torch.randn(4, 3, 112, 112))
    assert embeddings.shape == (4, 512)
    assert sum(kept.values()) / 4 == pytest.approx(activation_bytes("mobilefacenet", 512, False), rel=0.02)


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


def test_bad_shapes() -> None:
    with pytest.raises(InputError, match="at least 1"):
        HeadShape(0)
    with pytest.raises(InputError, match="optimizer must be one of sgd, adamw"):
        HeadShape(10, optimizer="lion")
