"""The training step: the papers' eager float32 NCHW step, and what precision, memory format, compiling and a fused
optimiser make of it, in one run and with loss curves that agree.

Goals on 2 cores: 5 times for iresnet18 and iresnet50, 2.2 times for mobilefacenet. Run `python
benchmarks/train_step.py` (6 minutes, of which half is compiling where nothing is compiled yet), `--models iresnet18`
for one of them, `--quick` for a look at a tiny network. `--write` puts the tables of these models into
benchmarks/train_step.md.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from inference import machine, put
from torch import Tensor, nn

from marginface.backbones import create_backbone
from marginface.margins import create_margin
from marginface.softmax import MarginSoftmax

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
    return report(name, batch, seconds, losses)


def report(name: str, batch: int, seconds: dict[str, list[float]], losses: dict[str, list[float]]) -> str:
    medians = {way: median(times[1:]) for way, times in seconds.items()}
    lines = [
        f"## {name}",
        "",
        f"| batch {batch} | images/s | ratio | first step s | loss first → last | largest difference to float32 |",
        "|---|---|---|---|---|---|",
    ]
    for way, middle in medians.items():
        apart = max(abs(a - b) / abs(b) for a, b in zip(losses[way], losses[EAGER], strict=True))
        lines.append(
            f"| {way} | {batch / middle:.1f} | {medians[EAGER] / middle:.1f} | {seconds[way][0]:.1f} | "
            f"{losses[way][0]:.2f} → {losses[way][-1]:.2f} | {100 * apart:.2f} % |"
        )
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
    what = f"forward, ArcFace over {CLASSES} classes, backward, SGD; medians, all ways in turns in one process"
    text = f"# Training step\n\n`python benchmarks/train_step.py`: {what}; {machine()}.\n"
    measured = {}
    print(text)
    for name in given.models:
        measured[name] = measure(name, given.seconds)
        print(measured[name], flush=True)
        if given.write:  # at once: an interrupted run keeps what it has
            put(Path(__file__).with_suffix(".md"), measured, text)
