"""Time and memory of the softmax head: forward, backward and update, against what people use.

    python benchmarks/softmax.py                         # N 512, C 85,742: all contenders, both mallocs, memory
    python benchmarks/softmax.py --rows 128 --classes 360000 --contenders eager,ours-bf16,ours-fp32
    python benchmarks/softmax.py --margins               # every margin against ArcFace
    python benchmarks/softmax.py --memory --rows 128 --classes 1000000 --contenders ours-bf16

Alternatives take turns in one process, medians of --repeats rounds. "tuned" is the same in an environment where
malloc keeps its pages (performance of eager code depends on it). Memory is the peak above the imports, in a process
of its own. The floor is four products at the machine's own rate, measured in the same run, plus five passes over
weights and momentum at its own memory bandwidth.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.margins import BinaryMargin, create_margin, list_margins
from marginface.softmax import MarginSoftmax
from marginface.softmax.kernels import default_block, product

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "1000000000"}
FEATURES = 512
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
DEFAULT = "eager,pml,dense,ours-bf16,ours-fp32,ours-bf16-sampled"
Step = Callable[[], None]


class Eager(nn.Module):
    """ArcFace as most repositories write it: everything at once, N×C."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, FEATURES) * 0.01)

    def forward(self, x_ND: Tensor, labels_N: Tensor) -> Tensor:
        cos_NC = F.linear(F.normalize(x_ND), F.normalize(self.weight)).clamp(-1 + 1e-7, 1 - 1e-7)
        margin_NC = torch.zeros_like(cos_NC).scatter_(1, labels_N[:, None], 0.5)
        return F.cross_entropy(64.0 * torch.cos(torch.acos(cos_NC) + margin_NC), labels_N)


def contender(name: str, num_classes: int, margin: str = "arcface") -> tuple[nn.Module, bool]:
    """A head, and whether its backward pass updates it."""
    if name == "eager":
        return Eager(num_classes), False
    if name == "pml":
        from pytorch_metric_learning.losses import ArcFaceLoss

        return ArcFaceLoss(num_classes, FEATURES), False
    options = {"num_classes": num_classes} if margin in ("adacos", "sphereface2") else {}
    precision = "bfloat16" if "bf16" in name else "float32"
    head = MarginSoftmax(
        FEATURES,
        num_classes,
        create_margin(margin, **options),
        engine="dense" if name == "dense" else "streaming",
        precision=precision,
        sample_rate=0.1 if "sampled" in name else 1.0,
    )
    if name == "dense" or "unfused" in name:
        return head, False
    head.fuse_sgd(**SGD)
    return head, True


def prepare(name: str, rows: int, num_classes: int, margin: str = "arcface") -> Step:
    """One training step of a contender on a fixed batch."""
    torch.manual_seed(0)
    head, fused = contender(name, num_classes, margin)
    optimizer = None if fused else torch.optim.SGD(head.parameters(), **SGD)
    x_ND = torch.randn(rows, FEATURES, requires_grad=True)
    labels_N = torch.randint(0, num_classes, (rows,))

    def step() -> None:
        x_ND.grad = None
        head(x_ND, labels_N).backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


def medians(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Milliseconds; the steps take turns, the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def machine_steps(rows: int) -> dict[str, Step]:
    """What the floor is made of: one block's three shapes of product in both types, and one pass over memory."""
    block = default_block(rows, FEATURES, torch.device("cpu"))
    steps: dict[str, Step] = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        x, w, p = (torch.randn(shape).to(dtype) for shape in ((rows, FEATURES), (block, FEATURES), (rows, block)))
        out, by_x, by_w = torch.empty_like(p), torch.empty_like(x), torch.empty_like(w)
        steps[f"gemm {name} xW"] = lambda x=x, w=w, out=out: product(x, w, lambda: out)
        steps[f"gemm {name} pW"] = lambda p=p, w=w, by_x=by_x: product(p, w.T, lambda: by_x)
        steps[f"gemm {name} pX"] = lambda p=p, x=x, by_w=by_w: torch.mm(p.T, x, out=by_w)
    big = torch.zeros(2**26)
    steps["memory"] = lambda: big.add_(1.0)
    return steps


def floors(found: dict[str, float], rows: int, num_classes: int) -> dict[str, float]:
    """Milliseconds of four products and five passes over weights and momentum."""
    block = default_block(rows, FEATURES, torch.device("cpu"))
    passes = 5 * num_classes * FEATURES * 4 / (2**26 * 4 * 2) * found["memory"]  # add_ reads and writes
    return {
        name: (2 * found[f"gemm {name} xW"] + found[f"gemm {name} pW"] + found[f"gemm {name} pX"])
        * (num_classes / block)
        + passes
        for name in ("bf16", "fp32")
    }


def child(arguments: argparse.Namespace) -> dict[str, float]:
    """Runs in a process of its own, in the environment to be measured."""
    torch.set_num_threads(arguments.threads)
    if arguments.child == "memory":
        (name,) = arguments.contenders.split(",")
        baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step = prepare(name, arguments.rows, arguments.classes)
        for _ in range(2):
            step()
        return {name: (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - baseline) / 1024}
    if arguments.child == "margins":
        names = ["arcface", *(name for name in list_margins() if name != "arcface")]
        steps = {name: prepare("ours-bf16", arguments.rows, arguments.classes, name) for name in names}
        return medians(steps, arguments.repeats)
    names = arguments.contenders.split(",")
    steps = {name: prepare(name, arguments.rows, arguments.classes) for name in names}
    found = medians(steps, arguments.repeats)
    steps.clear()
    gc.collect()
    return found | medians(machine_steps(arguments.rows), arguments.repeats)


def run_child(kind: str, arguments: argparse.Namespace, contenders: str, tuned: bool = False) -> dict[str, float]:
    """The figures of a child process."""
    words = [sys.executable, __file__, "--child", kind, "--contenders", contenders]
    for name in ("rows", "classes", "repeats", "threads"):
        words += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(words, env=os.environ | (TUNED if tuned else {}), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def report_times(arguments: argparse.Namespace) -> None:
    columns = {
        name: run_child("times", arguments, arguments.contenders, name == "tuned") for name in ("default", "tuned")
    }
    print(f"N {arguments.rows}, C {arguments.classes:,}, D {FEATURES}: ms a step (times faster than eager, × floor)")
    print(f"{'':22}" + "".join(f"{column + ' malloc':>28}" for column in columns))
    for name in arguments.contenders.split(","):
        cells = []
        for found in columns.values():
            floor = floors(found, arguments.rows, arguments.classes)["bf16" if "bf16" in name else "fp32"]
            ratio = f"{found['eager'] / found[name]:.1f}×" if "eager" in found else ""
            of_floor = "" if "sampled" in name else f"{found[name] / floor:.2f}"
            cells.append(f"{found[name]:10.0f} ms {ratio:>6} {of_floor:>6}")
        print(f"{name:22}" + "".join(f"{cell:>28}" for cell in cells))
    found = columns["default"]
    block = default_block(arguments.rows, FEATURES, torch.device("cpu"))
    work = 2 * arguments.rows * FEATURES * block / 1e6
    for name in ("bf16", "fp32"):
        rate = 4 * work / (2 * found[f"gemm {name} xW"] + found[f"gemm {name} pW"] + found[f"gemm {name} pX"])
        ours = found.get(f"ours-{name}")
        share = (
            f"; ours-{name} reaches {4 * 2 * arguments.rows * FEATURES * arguments.classes / ours / 1e6 / rate:.0%}"
            if ours
            else ""
        )
        print(f"{name} products: {rate:.0f} GFLOP/s in blocks of {block}{share}")


def report_memory(arguments: argparse.Namespace) -> None:
    for name in arguments.contenders.split(","):
        print(f"{name:22}{run_child('memory', arguments, name)[name]:8.0f} MB peak above the imports")


def report_margins(arguments: argparse.Namespace) -> None:
    found = run_child("margins", arguments, "")
    for name, value in found.items():
        note = " (no softmax)" if isinstance(margin_of(name), BinaryMargin) else ""
        print(f"{name:22}{value:8.0f} ms {value / found['arcface']:6.2f} × arcface{note}")


def margin_of(name: str) -> nn.Module:
    return create_margin(name, **({"num_classes": 10} if name in ("adacos", "sphereface2") else {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--classes", type=int, default=85742)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--contenders", default=DEFAULT, help="comma-separated; also ours-bf16-unfused")
    parser.add_argument("--memory", action="store_true", help="memory only")
    parser.add_argument("--margins", action="store_true", help="every margin against ArcFace")
    parser.add_argument("--child", choices=["times", "memory", "margins"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments)))
    elif arguments.margins:
        report_margins(arguments)
    else:
        if not arguments.memory:
            report_times(arguments)
        report_memory(arguments)


if __name__ == "__main__":
    main()
