"""The training step: the papers' eager float32 NCHW step, and what precision, memory format, compiling and a fused
optimiser make of it, in one run and with loss curves that agree.

Below each table stands how fast this machine does the step's products alone: every convolution and linear layer by
itself, forward and backward. No step can be faster than that, so it says how near the goal can be come to here.

Goals on 2 cores: 5 times for iresnet18 and iresnet50, 2.2 times for mobilefacenet. Run `python
benchmarks/train_step.py` (7 minutes, of which half is compiling where nothing is compiled yet), `--models iresnet18`
for one of them, `--quick` for a look at a tiny network. `--write` puts the tables of these models into
benchmarks/train_step.md.
"""

import argparse
import copy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple, cast

import torch
from inference import machine, put
from torch import Tensor, nn

from marginface.backbones import create_backbone
from marginface.margins import create_margin
from marginface.softmax import MarginSoftmax
from marginface.training.memory import keep_freed_memory

BATCHES = {"iresnet18": 32, "iresnet50": 32, "mobilefacenet": 64, "small": 32}
GOALS = {"iresnet18": 5.0, "iresnet50": 5.0, "mobilefacenet": 2.2}
STEPS, LEAST = 20, 3  # measured, after the first
CLASSES = 1000  # few, so that the table is about the network
EAGER = "eager float32 NCHW (the papers)"
WAYS = {  # memory format, bf16, compiled, fused optimiser
    EAGER: (torch.contiguous_format, False, False, False),
    "channels last, fused optimiser": (torch.channels_last, False, False, True),
    "+ bfloat16": (torch.channels_last, True, False, True),
    "+ compiled": (torch.channels_last, True, True, True),
}
KEPT = {  # the same with `training/memory.py`, and what goes that way
    "eager float32 NCHW, freed memory kept": EAGER,
    "+ compiled, freed memory kept, as `marginface train` has it": "+ compiled",
}
Step = Callable[[Tensor, Tensor], float]


def stepper(network: nn.Module, head: nn.Module, way: tuple[torch.memory_format, bool, bool, bool]) -> Step:
    """One update of copies of the same weights; returns the loss."""
    layout, half, compile_, fused = way
    network, head = copy.deepcopy(network).to(memory_format=layout), copy.deepcopy(head)
    parameters = [p for p in (*network.parameters(), *head.parameters()) if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=5e-4, fused=fused)
    called = torch.compile(network) if compile_ else network

    def step(images: Tensor, labels: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            embeddings = called(images.to(memory_format=layout))
        loss = head(embeddings.float(), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def measure(name: str, budget: float) -> str:
    """The ways take turns, a step each, on the same images, until the budget of seconds is spent."""
    torch.manual_seed(0)
    network = create_backbone(name, num_features=512).train()
    head = MarginSoftmax(512, CLASSES, create_margin("arcface", m=0.5, s=64.0))
    batch = BATCHES.get(name, 32)
    data = [(torch.rand(batch, 3, 112, 112) * 2 - 1, torch.randint(CLASSES, (batch,))) for _ in range(2)]
    ways = {way: stepper(network, head, options) for way, options in WAYS.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    losses: dict[str, list[float]] = {way: [] for way in ways}
    end = float("inf")
    for number in range(STEPS + 1):
        if number > LEAST and time.perf_counter() > end:
            break
        images, labels = data[number % len(data)]
        for way, step in ways.items():
            start = time.perf_counter()
            losses[way].append(step(images, labels))
            seconds[way].append(time.perf_counter() - start)
        if number == 0:  # the first step compiles
            end = time.perf_counter() + budget
    keep_freed_memory()  # for good, so these come last, and every network is measured by a process of its own
    for kept, way in KEPT.items():
        times = [timed(ways[way], *data[number % len(data)]) for number in range(len(seconds[way]))]
        seconds[kept], losses[kept] = times, []
    middle = {way: median(times[1:]) for way, times in seconds.items()}
    ways.clear()
    return report(name, batch, seconds, losses) + "\n" + limit(network, images, middle[EAGER], min(middle.values()))


def timed(step: Step, images: Tensor, labels: Tensor) -> float:
    start = time.perf_counter()
    step(images, labels)
    return time.perf_counter() - start


class Product(NamedTuple):
    """A convolution or linear layer at work."""

    layer: nn.Module
    shape: torch.Size
    first: bool  # nobody wants the gradient of the images
    operations: float  # additions and multiplications, forward and backward


def products(network: nn.Module, images: Tensor) -> list[Product]:
    """All of a network, in their order."""
    found: list[Product] = []

    def note(layer: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
        weight = cast(Tensor, layer.weight)
        first = not found
        found.append(Product(layer, given[0].shape, first, 2 * (2 if first else 3) * out.numel() * weight[0].numel()))

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


def alone(product: Product, dtype: torch.dtype) -> float:
    """Seconds that a layer takes forward and backward, in the best of three."""
    x = torch.randn(product.shape).to(dtype)
    layer = copy.deepcopy(product.layer).to(dtype)
    if x.dim() == 4:
        x, layer = x.to(memory_format=torch.channels_last), layer.to(memory_format=torch.channels_last)
    wanted = [*layer.parameters(), *([] if product.first else [x.requires_grad_()])]
    gradient = torch.ones_like(layer(x))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        torch.autograd.grad(layer(x), wanted, gradient)
        best = min(best, time.perf_counter() - start)
    return best


def floor(network: nn.Module, images: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """(seconds, GFLOP/s) of a step's products, each by itself; equal ones are timed once."""
    found, times = products(network, images), dict[str, float]()
    for product in found:
        kind = f"{product.layer} {product.shape} {product.first}"
        times[kind] = times[kind] if kind in times else alone(product, dtype)
    seconds = sum(times[f"{product.layer} {product.shape} {product.first}"] for product in found)
    return seconds, sum(product.operations for product in found) / seconds / 1e9


def limit(network: nn.Module, images: Tensor, eager: float, best: float) -> str:
    """What the machine's own products say to the figures: seconds of the eager step and of the fastest."""
    (single, single_rate), (half, half_rate) = (floor(network, images, t) for t in (torch.float32, torch.bfloat16))
    return (
        f"The products alone take {half:.2f} s in bfloat16 ({half_rate:.0f} GFLOP/s) and {single:.2f} s in float32 "
        f"({single_rate:.0f} GFLOP/s) on this machine: {half / best:.0%} of the fastest step. A step of nothing else "
        f"would be {eager / half:.1f} times as fast as the eager one.\n"
    )


def report(name: str, batch: int, seconds: dict[str, list[float]], losses: dict[str, list[float]]) -> str:
    medians = {way: median(times[1:]) for way, times in seconds.items()}
    lines = [
        f"## {name}",
        "",
        f"| batch {batch} | images/s | ratio | first step s | loss first → last | largest difference to float32 |",
        "|---|---|---|---|---|---|",
    ]
    for way, middle in medians.items():
        line = f"| {way} | {batch / middle:.1f} | {medians[EAGER] / middle:.1f} |"
        if losses[way]:
            apart = max(abs(a - b) / abs(b) for a, b in zip(losses[way], losses[EAGER], strict=True))
            line += f" {seconds[way][0]:.1f} | {losses[way][0]:.2f} → {losses[way][-1]:.2f} | {100 * apart:.2f} % |"
        else:  # the same steppers, gone on with
            line += " | | |"
        lines.append(line)
    best, goal = medians[EAGER] / min(medians.values()), GOALS.get(name)
    reached = f"; goal {goal:g}: {'reached' if best >= goal else 'not reached'}" if goal else ""
    steps = len(seconds[EAGER]) - 1
    return "\n".join([*lines, "", f"Best: {best:.1f} times{reached}. Medians of {steps} steps.", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(GOALS))
    parser.add_argument("--seconds", type=float, default=60, help=f"of measuring a network, {LEAST} to {STEPS} steps")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.models, given.seconds = ["small"], 2
    if len(given.models) > 1:
        for name in given.models:
            subprocess.run([sys.executable, *sys.argv, "--models", name], check=True)
        sys.exit()
    what = (
        f"forward, ArcFace over {CLASSES} classes, backward, SGD; medians, all ways in turns in one process, which "
        "every network has of its own"
    )
    text = f"# Training step\n\n`python benchmarks/train_step.py`: {what}; {machine()}.\n"
    (name,) = given.models
    measured = {name: measure(name, given.seconds)}
    print(text, measured[name], sep="\n")
    if given.write:
        put(Path(__file__).with_suffix(".md"), measured, text)
