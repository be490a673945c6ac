"""How a training step grows with classes, batch and processes, beside what `marginface plan` predicts.

    python benchmarks/scale.py [--quick] [--write]     # 4 minutes on 2 quiet cores; scale.md, for docs/scale.md

Every row is a run of its own: memory is what it took beyond a tiny step, time the median of some steps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from marginface.backbones import create_backbone
from marginface.backbones.size import measure
from marginface.margins import create_margin
from marginface.softmax import MarginSoftmax
from marginface.softmax.plan import HeadShape, head_flops, head_memory, wire_bytes

PAGE = Path(__file__).with_suffix(".md")
FEATURES, BACKBONE = 512, "small"
FULL = {"classes": (20_000, 40_000, 80_000, 160_000), "batch": (32, 64, 128, 256), "at": 80_000, "steps": 7}
QUICK = {"classes": (2_000, 4_000), "batch": (16, 32), "at": 4_000, "steps": 2}


def peak() -> int:
    """Bytes this process had at most."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def steps(classes: int, batch: int, count: int, with_backbone: bool) -> list[tuple[float, float]]:
    """Seconds on the clock and of the processor, of each of some steps after the first."""
    group = dist.group.WORLD if dist.is_initialized() else None
    head = MarginSoftmax(FEATURES, classes, create_margin("arcface"), process_group=group, precision="float32")
    head.fuse_sgd(lr=0.1)
    network: torch.nn.Module | None = create_backbone(BACKBONE, FEATURES).train() if with_backbone else None
    if network is not None and group is not None:
        network = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9) if network is not None else None
    found = []
    for _ in range(count + 1):
        x = torch.randn(batch, 3, 112, 112) if network else torch.randn(batch, FEATURES, requires_grad=True)
        labels = torch.randint(0, classes, (batch,))
        if dist.is_initialized():
            dist.barrier()
        clock, processor = time.perf_counter(), time.process_time()
        head(network(x) if network else x, labels).backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad()
        found.append((time.perf_counter() - clock, time.process_time() - processor))
    return found[1:]


def work(task: dict[str, Any]) -> None:
    """One process of a row; prints what it measured."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // task["processes"]))
    if task["processes"] > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        where = {"init_method": f"file://{task['meet']}", "rank": task["rank"], "world_size": task["processes"]}
        dist.init_process_group("gloo", **where)
    steps(64, 4, 1, task["backbone"])
    before = peak()
    found = steps(task["classes"], task["batch"], task["steps"], task["backbone"])
    clock, processor = (median(column) for column in zip(*found, strict=True))
    print(json.dumps({"clock": clock, "processor": processor, "memory": peak() - before}))
    if dist.is_initialized():
        dist.destroy_process_group()


def row(**task: Any) -> dict[str, float]:
    """The slowest clock, the processor time of all processes together, the memory of the largest."""
    task = {"processes": 1, "backbone": False, **task}
    with tempfile.TemporaryDirectory() as folder:
        task["meet"] = f"{folder}/meet"
        started = [
            subprocess.Popen(
                [sys.executable, __file__, "--work", json.dumps({**task, "rank": rank})],
                stdout=subprocess.PIPE,
                env=os.environ | {"MALLOC_TRIM_THRESHOLD_": "0"},
            )
            for rank in range(task["processes"])
        ]
        found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    return {
        "clock": max(one["clock"] for one in found),
        "processor": sum(one["processor"] for one in found),
        "memory": max(one["memory"] for one in found),
    }


def heads(size: dict[str, Any], rows: list[tuple[int, int]]) -> str:
    """A table of the head alone."""
    lines = [
        "| classes | batch | GFLOP planned | seconds | GFLOP/s | memory planned | memory measured |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for classes, batch in rows:
        shape = HeadShape(classes, FEATURES, batch, bfloat16=False, device="cpu")
        work, memory = batch * head_flops(shape) / 1e9, sum(head_memory(shape).values())
        found = row(classes=classes, batch=batch, steps=size["steps"])
        lines.append(
            f"| {classes:,} | {batch} | {work:.0f} | {found['clock']:.3f} | {work / found['clock']:.0f} "
            f"| {memory / 2**20:.0f} MiB | {found['memory'] / 2**20:.0f} MiB |"
        )
    return "\n".join(lines)


def processes(size: dict[str, Any], total: int, grows: bool) -> str:
    """A table of the whole step; the batch of each process is `total` where it grows, else its share of `total`."""
    lines = [
        "| processes | batch of each | seconds | of the processor, all together | head's memory planned, of each "
        "| sent by each, planned |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for count in (1, 2, 4):
        batch = total if grows else total // count
        shape = HeadShape(size["at"], FEATURES, batch, devices=count, bfloat16=False, device="cpu")
        sent = sum(wire_bytes(shape, measure(BACKBONE, FEATURES).parameters).values())
        found = row(classes=size["at"], batch=batch, steps=size["steps"], processes=count, backbone=True)
        lines.append(
            f"| {count} | {batch} | {found['clock']:.3f} | {found['processor']:.3f} "
            f"| {sum(head_memory(shape).values()) / 2**20:.0f} MiB | {sent / 1e6:.1f} MB |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few classes and steps")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(json.loads(arguments.work))
        return
    size = QUICK if arguments.quick else FULL
    total = size["batch"][-1] // 2
    page = f"""# How a step grows

`python benchmarks/scale.py{" --quick" if arguments.quick else ""} --write`, on {os.cpu_count()} cores, torch \
{torch.__version__}, in float32. D = {FEATURES}, ArcFace, SGD in the backward pass.

## With classes, the head alone
{heads(size, [(classes, total) for classes in size["classes"]])}

## With the batch, the head alone
{heads(size, [(size["at"], batch) for batch in size["batch"]])}

## With processes, the same global batch
Backbone {BACKBONE}, {size["at"]:,} classes, gloo. More processes than cores share them.

{processes(size, total, grows=False)}

## With processes, the batch of each the same
{processes(size, total // 4, grows=True)}
"""
    print(page)
    if arguments.write:
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
