"""Time and memory of the softmax head: forward, backward and update, against what people use.

    python benchmarks/softmax.py --write          # everything, about 15 minutes on 2 quiet cores: benchmarks/softmax.md
    python benchmarks/softmax.py times-85742      # one section; --write replaces this section alone
    python benchmarks/softmax.py --quick          # everything on a fiftieth of the classes
    python benchmarks/softmax.py --device cuda --write            # on a GPU: benchmarks/softmax_gpu.md

Every section runs in processes of its own, and one that fails leaves the others alone. Alternatives take turns in one
process; medians of --repeats rounds after one that does not count; on a GPU the time that its queue takes. "tuned" is
the same in an environment where malloc keeps its pages, on which the speed of eager code depends. Memory is the peak
above the imports in a process of its own.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.margins import BinaryMargin, create_margin, list_margins
from marginface.softmax import MarginSoftmax
from marginface.softmax.kernels import default_block, product

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "1000000000"}
FEATURES = 512
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
COMPILED = ", compiled"  # behind the name of a margin
QUICK = 50  # --quick divides the classes by this
PASS = 2**26  # numbers in a pass over memory
Step = Callable[[], object]
Found = dict[str, float]


@dataclass(frozen=True)
class Section:
    """A table: its contenders at N rows and C classes, and what is asked of them."""

    kind: str  # times, memory or margins
    rows: int
    classes: int
    contenders: tuple[str, ...]
    goals: dict[str, str]


SECTIONS = {
    "times-85742": Section(
        "times", 512, 85_742, ("eager", "pml", "dense", "ours-fp32", "ours-bf16", "ours-bf16-unfused",
         "ours-fp32-compiled", "ours-bf16-compiled", "ours-sampled"),
        {"ours-fp32": "9× / 3×", "ours-bf16": "20× / 7×; pml 9×", "ours-sampled": "90× / 28×"},
    ),
    "times-360000": Section(
        "times", 128, 360_000,
        ("eager", "ours-fp32", "ours-bf16", "ours-fp32-compiled", "ours-bf16-compiled", "ours-sampled"),
        {"ours-fp32": "10×", "ours-bf16": "18×"},
    ),
    "memory-85742": Section(
        "memory", 512, 85_742, ("eager", "pml", "dense", "ours-fp32", "ours-bf16"), {"ours-bf16": "500 MB"},
    ),
    "memory-1000000": Section(
        "memory", 128, 1_000_000, ("eager", "ours-fp32", "ours-bf16"), {"ours-bf16": "4,200 MB"},
    ),
    "margins": Section(
        "margins", 512, 30_000,
        tuple(name + way for name in (
            "arcface", *(name for name in list_margins() if name != "arcface"), "arcface, interclass_filter")
            for way in ("", COMPILED)), {},
    ),
}  # fmt: skip


class Eager(nn.Module):
    """ArcFace as most repositories write it: everything at once, N×C."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, FEATURES) * 0.01)

    def forward(self, x_ND: Tensor, labels_N: Tensor) -> Tensor:
        cos_NC = F.linear(F.normalize(x_ND), F.normalize(self.weight)).clamp(-1 + 1e-7, 1 - 1e-7)
        margin_NC = torch.zeros_like(cos_NC).scatter_(1, labels_N[:, None], 0.5)
        return F.cross_entropy(64.0 * torch.cos(torch.acos(cos_NC) + margin_NC), labels_N)


def contender(name: str, num_classes: int) -> tuple[nn.Module, bool]:
    """A head, and whether its backward pass updates it. Names of margins are ours in bfloat16."""
    if name == "eager":
        return Eager(num_classes), False
    if name == "pml":
        from pytorch_metric_learning.losses import ArcFaceLoss

        return ArcFaceLoss(num_classes, FEATURES), False
    head = MarginSoftmax(
        FEATURES,
        num_classes,
        margin_of(name, num_classes),
        engine="dense" if name == "dense" else "streaming",
        precision="float32" if "fp32" in name else "bfloat16",
        sample_rate=0.1 if "sampled" in name else 1.0,
        compile="compiled" in name,
    )
    fused = name != "dense" and "unfused" not in name
    if fused:
        head.fuse_sgd(**SGD)
    return head, fused


def margin_of(name: str, num_classes: int) -> nn.Module:
    """The margin of a contender: ArcFace unless it is named after another."""
    name, _, option = name.removesuffix(COMPILED).partition(", ")
    options: dict[str, float] = {option: 0.1} if option else {}
    if name in ("adacos", "sphereface2"):
        options["num_classes"] = num_classes
    return create_margin(name if name in list_margins() else "arcface", **options)


def prepare(name: str, rows: int, num_classes: int, device: str) -> Step:
    """One training step of a contender on a fixed batch."""
    torch.manual_seed(0)
    head, fused = contender(name, num_classes)
    head.to(device)
    optimizer = None if fused else torch.optim.SGD(head.parameters(), **SGD)
    x_ND = torch.randn(rows, FEATURES, device=device, requires_grad=True)
    labels_N = torch.randint(0, num_classes, (rows,), device=device)

    def step() -> None:
        x_ND.grad = None
        head(x_ND, labels_N).backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


def prepared(names: tuple[str, ...], rows: int, num_classes: int, device: str) -> dict[str, Step]:
    """The contenders that can be had here; the others are told of."""
    steps = {}
    for name in names:
        try:
            steps[name] = prepare(name, rows, num_classes, device)
        except (ImportError, RuntimeError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return steps


def medians(steps: dict[str, Step], repeats: int, device: str) -> Found:
    """Milliseconds; the steps take turns, the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            elapsed = on_device(step) if device == "cuda" else on_clock(step)
            if turn:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def on_clock(step: Step) -> float:
    start = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - start)


def on_device(step: Step) -> float:
    """What the GPU takes for a step that waits in its queue, as behind a backbone: launching it is hidden."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(2 * 10**8)  # clock ticks, 0.1 s
    begin.record()
    step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def machine_steps(rows: int, num_classes: int, device: str) -> dict[str, Step]:
    """What the floor is made of: the three products of all blocks in both types, and one pass over memory."""

    def repeated(multiply: Step, blocks: int) -> Step:
        def step() -> None:
            for _ in range(blocks):
                multiply()

        return step

    steps: dict[str, Step] = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        block = default_block(rows, FEATURES, dtype, torch.device(device))
        blocks = max(1, round(num_classes / block))
        shapes = (rows, FEATURES), (block, FEATURES), (rows, block)
        x, w, p = (torch.randn(shape, device=device).to(dtype) for shape in shapes)
        out, by_x, by_w = torch.empty_like(p), torch.empty_like(x), torch.empty_like(w)
        steps[f"{name} xW"] = repeated(lambda x=x, w=w, out=out: product(x, w, lambda: out), blocks)
        steps[f"{name} pW"] = repeated(lambda p=p, w=w, by_x=by_x: product(p, w.T, lambda: by_x), blocks)
        steps[f"{name} pX"] = repeated(lambda p=p, x=x, by_w=by_w: torch.mm(p.T, x, out=by_w), blocks)
    big = torch.zeros(PASS, device=device)

    return steps | {"memory": lambda: big.add_(1.0)}


def products_ms(found: Found, kind: str) -> float:
    """The three products that no method can do without, at the machine's own rate."""
    return sum(found[f"{kind} {shape}"] for shape in ("xW", "pW", "pX"))


def floor_ms(found: Found, kind: str, num_classes: int) -> float:
    """Three products, and five passes over weights and momentum at the machine's own memory bandwidth."""
    passes = 5 * num_classes * FEATURES / (PASS * 2) * found["memory"]  # add_ reads and writes
    return products_ms(found, kind) + passes


def peak_mb(device: str) -> float:
    """The highest memory of this process so far; ru_maxrss would begin with its parent's."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def child(section: Section, repeats: int, name: str, device: str) -> Found:
    """Runs in a process of its own, in the environment to be measured."""
    if section.kind == "memory":
        contender(name, 2)  # with all that it imports
        before = peak_mb(device)
        step = prepare(name, section.rows, section.classes, device)
        for _ in range(2):
            step()
        return {name: peak_mb(device) - before}
    torch._dynamo.config.cache_size_limit = len(section.contenders)  # margins of which one process compiles passes
    steps = prepared(section.contenders, section.rows, section.classes, device)
    found = medians(steps, repeats, device)
    if section.kind == "margins":
        return found
    steps.clear()
    gc.collect()
    return found | medians(machine_steps(section.rows, section.classes, device), repeats, device)


def run_child(key: str, arguments: argparse.Namespace, name: str = "", tuned: bool = False) -> Found:
    """The figures of a child process; nothing where it died."""
    words = [sys.executable, __file__, key, "--child", name or key, "--repeats", str(arguments.repeats)]
    words += ["--threads", str(arguments.threads), "--device", arguments.device] + ["--quick"] * arguments.quick
    done = subprocess.run(words, env=os.environ | (TUNED if tuned else {}), stdout=subprocess.PIPE, check=False)
    if done.returncode:
        print(f"{key} {name}: died with {done.returncode}", file=sys.stderr)
        return {}
    found: Found = json.loads(done.stdout)
    return found


def table(*rows: tuple[str, ...]) -> str:
    rule = tuple("---" + ":" * (column > 0) for column in range(len(rows[0])))
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def times_section(key: str, section: Section, arguments: argparse.Namespace) -> str:
    on_cpu = arguments.device == "cpu"  # malloc and the goals are the CPU's
    columns = [run_child(key, arguments, tuned=tuned) for tuned in ((False, True) if on_cpu else (False,))]
    head = ["", "ms", "× eager", "× pml", "× floor"]
    if on_cpu:
        head += ["tuned: ms", "× eager", "× pml", "× floor", "goal, × eager"]
    rows = [tuple(head)]
    for name in section.contenders:
        cells = [name]
        for found in columns:
            cells += times_cells(found, name, section)
        rows.append((*cells, *([section.goals.get(name, "")] if on_cpu else [])))
    notes = [machine_note(found, section) for found in columns[:1] if found]
    return "\n\n".join([table(*rows), *notes])


def times_cells(found: Found, name: str, section: Section) -> list[str]:
    """Milliseconds, how much faster than the two others, and how far from the floor."""
    if name not in found:
        return ["failed", "", "", ""]
    faster = [f"{found[other] / found[name]:.1f}" if other in found else "" for other in ("eager", "pml")]
    kind = "bf16" if "bf16" in name else "fp32"
    of_floor = "" if "sampled" in name else f"{found[name] / floor_ms(found, kind, section.classes):.2f}"
    return [f"{found[name]:,.{0 if found[name] >= 100 else 2}f}", *faster, of_floor]


def machine_note(found: Found, section: Section) -> str:
    work = 3 * 2 * section.rows * FEATURES * section.classes / 1e6
    lines = []
    for kind in ("fp32", "bf16"):
        products = products_ms(found, kind)
        floor = floor_ms(found, kind, section.classes)
        share = f"; ours reaches {products / found[f'ours-{kind}']:.0%} of it" if f"ours-{kind}" in found else ""
        lines.append(f"{kind}: this machine multiplies {work / products:,.0f} GFLOP/s{share}; floor {floor:,.0f} ms.")
    return "\n".join(lines)


def memory_section(key: str, section: Section, arguments: argparse.Namespace) -> str:
    rows = [("", "MB above the imports", "goal")]
    for name in section.contenders:
        found = run_child(key, arguments, name)
        rows.append((name, f"{found[name]:,.0f}" if found else "failed", section.goals.get(name, "")))
    return table(*rows)


def margins_section(key: str, section: Section, arguments: argparse.Namespace) -> str:
    found = run_child(key, arguments)
    rows = [("", "ms", "× arcface", "compiled: ms", "× arcface")]
    for name in section.contenders:
        if name.endswith(COMPILED) or name not in found:
            continue
        note = " (no softmax)" if isinstance(margin_of(name, 10), BinaryMargin) else ""
        cells = [name + note]
        for way in ("", COMPILED):
            cells += [f"{found[name + way]:,.0f}", f"{found[name + way] / found['arcface' + way]:.2f}"]
        rows.append(tuple(cells))
    return table(*rows) if found else "failed"


WRITERS = {"times": times_section, "memory": memory_section, "margins": margins_section}


def write(path: Path, sections: dict[str, str]) -> None:
    """Replaces these sections of the page and keeps the others."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    old = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in text.split("\n## ")[1:]}
    parts = [f"## {key}\n\n{body}\n" for key, body in (old | sections).items()]
    intro = (
        "# The softmax head\n\nForward, backward and update (SGD with momentum), D = 512, by `benchmarks/softmax.py`, "
        "whose first lines explain the columns. × eager and × pml: how many times faster than these; × floor: time "
        "over three products at the machine's own rate plus five passes over weights and momentum.\n"
    )
    path.write_text("\n".join([intro, *parts]), encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; none: all")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help=f"classes / {QUICK}, three repeats; never written")
    parser.add_argument("--write", action="store_true", help="to benchmarks/softmax.md or softmax_gpu.md")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return arguments


def sized(section: Section, quick: bool) -> Section:
    classes = section.classes // QUICK if quick else section.classes
    return Section(section.kind, section.rows, classes, section.contenders, section.goals)


def main() -> None:
    arguments = parsed()
    if arguments.child:
        torch.set_num_threads(arguments.threads)
        (key,) = arguments.sections
        section = sized(SECTIONS[key], arguments.quick)
        print(json.dumps(child(section, arguments.repeats, arguments.child, arguments.device)))
        return
    arguments.repeats = min(3, arguments.repeats) if arguments.quick else arguments.repeats
    done = {}
    for key in arguments.sections or SECTIONS:
        section = sized(SECTIONS[key], arguments.quick)
        title = f"{key}: N {section.rows}, C {section.classes:,}"
        done[title] = WRITERS[section.kind](key, section, arguments)
        print(f"## {title}\n\n{done[title]}\n", flush=True)
        if arguments.write and not arguments.quick:
            page = "softmax.md" if arguments.device == "cpu" else "softmax_gpu.md"
            write(Path(__file__).with_name(page), done)


if __name__ == "__main__":
    main()
