"""Embedding speed: the papers' eager float32 loop against every other way through the same network, in one run.

Goals on 2 cores at batch 32, against eager float32 NCHW: 7 times for iresnet50, 5 times for mobilefacenet; at batch
1, 4 and 2 times. Run `python benchmarks/inference.py` (10 minutes, and 2 more where nothing is compiled yet),
`--models iresnet50` for one of them, `--quick` for a look at a tiny network. `--write` puts the tables of these models
into benchmarks/inference.md.
"""

import argparse
import contextlib
import copy
import io
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from marginface.backbones.fast import BFLOAT16, COMPILED, COSINE, FLOAT32, FastPath
from marginface.backbones.openvino_run import OpenVinoRun
from marginface.backbones.preprocess import normalise
from marginface.embedder import Embedder, ModelConfig, unit
from marginface.export.deployed import Interface
from marginface.export.onnx_file import OnnxRun
from marginface.export.onnx_file import write as write_onnx
from marginface.export.openvino_ir import XML
from marginface.export.openvino_ir import save as save_openvino
from marginface.export.quantise import calibration, quantise_onnx, quantise_openvino
from marginface.margins import create_margin
from marginface.optional_imports import load_library
from marginface.readers.synthetic import SyntheticFaces
from marginface.softmax import MarginSoftmax

MODELS = {"mobilefacenet": (1, 32), "iresnet50": (1, 32), "iresnet100": (32,)}  # and their batches
CALIBRATION = 16  # faces; the benchmark asks how fast int8 is, not how good
ROUNDS = 20  # at most; two at least
EAGER = "eager float32 NCHW (the papers)"
EMBED = "`model.embed`, of thousands"
GOALS = {("iresnet50", 32): 7.0, ("mobilefacenet", 32): 5.0, ("iresnet50", 1): 4.0, ("mobilefacenet", 1): 2.0}
STEPS = {
    "mobilefacenet": 60,
    "iresnet50": 30,
    "small": 10,
}  # of training; others keep random weights
TRAINED_ON = (32, 8)  # procedural people, and images of each
BATCH, RATE = 32, 0.1  # of training; the rate rises over five steps and falls to nothing
THOUSANDS = 4000  # images that `model.embed` is told of
WEIGHTS = (
    "mobilefacenet and iresnet50 were trained just before, for as long as a benchmark may take: softmax over 32 "
    "procedural people. iresnet100 holds random weights and batch norms with the faces' own statistics, so its "
    "cosines tell what rounding does to a network that learned nothing; trained ones are kinder. Cosines are "
    "the smallest of as many unseen people's faces as the batch holds; the nearer different people are to each other, "
    "the less a cosine of 0.9995 says. Of real runs, `lfw-scratch` keeps a cosine of 0.99999 in bfloat16, and its "
    "accuracy in int8 ([docs/deploy.md](../docs/deploy.md))."
)
Network = Callable[[torch.Tensor], torch.Tensor]


def model(name: str) -> Embedder:
    """Trained for a moment where that is cheap: rounding in a network that tells nobody apart says little."""
    torch.manual_seed(0)
    made = Embedder.create(ModelConfig(name))
    if name in STEPS:
        learn(made, STEPS[name])
    else:
        calibrate(made)
    made.backbone.to(memory_format=torch.contiguous_format).eval()  # as a model comes from its file
    return made


def calibrate(made: Embedder) -> None:
    """Fresh weights whose activations stay in range: batch norms hold the faces' own statistics."""
    made.backbone.train()
    for module in made.backbone.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0  # a tenth of them a batch would let a hundred layers overflow
    with torch.no_grad():
        made.backbone(pixels(16, made))


def learn(made: Embedder, steps: int) -> None:
    people, each = TRAINED_ON
    records = SyntheticFaces(people, each, size=made.preprocessing.size).read(range(people * each))
    images = torch.from_numpy(np.stack([np.asarray(record.image) for record in records]))
    labels = torch.tensor([record.label for record in records])
    head = MarginSoftmax(made.config.num_features, people, create_margin("normface", s=32.0))
    network = made.backbone.train().to(memory_format=torch.channels_last)
    weights = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.SGD(weights, lr=RATE, momentum=0.9, weight_decay=5e-4, fused=True)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 5) * (1 - step / steps)
        rows = torch.randint(len(images), (BATCH,))
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = network(normalise(images[rows]))
        head(embeddings.float(), labels[rows]).backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        optimiser.step()
        optimiser.zero_grad()


def apart(made: Embedder) -> float:
    """Mean cosine of different unseen people: near 1, the network tells nobody apart."""
    embeddings = unit(next(made.raw([faces(32, made.preprocessing.size)], flip=False)))
    return float((embeddings @ embeddings.T)[~np.eye(32, dtype=bool)].mean())


def faces(count: int, size: int = 112, first: int = 1000) -> np.ndarray:
    """Of people that no network was trained on."""
    reader = SyntheticFaces(count, 1, size=size, first_identity=first)
    return np.stack([np.asarray(record.image) for record in reader.read(range(count))])


def pixels(count: int, made: Embedder) -> torch.Tensor:
    """What the network takes, with the strides of NHWC images."""
    x = torch.from_numpy(faces(count, made.preprocessing.size)).permute(0, 3, 1, 2).float()
    return (x - made.preprocessing.mean) / made.preprocessing.std


def memory(work: Callable[[], object]) -> float:
    """MB by which the process's largest size grew while `work` ran (Linux; elsewhere since the beginning)."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def field(name: str) -> float:
        return next(float(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)) / 1024

    if not status.exists():
        work()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with contextlib.suppress(OSError):  # where it may not be written, the figure is the growth of the peak
        reset.write_text("5")
    before = field("VmRSS")
    work()
    return max(0.0, field("VmHWM") - before)


def engines(made: Embedder, folder: Path, x: torch.Tensor, path: FastPath) -> dict[str, tuple[Network, float]]:
    """Name -> (the network, seconds it took to make). path: what chooses for `model.embed`."""
    plain = copy.deepcopy(made.backbone).eval()
    ways: dict[str, Callable[[], Network]] = {
        EAGER: lambda: lambda images: plain(images.contiguous()),
        FLOAT32: lambda: made.backbone,
        BFLOAT16: lambda: FastPath(made.backbone).bfloat16,
        COMPILED: lambda: compiled(made, x),
        EMBED: lambda: path.network(x, THOUSANDS),
        "ONNX Runtime float32": lambda: foreign(OnnxRun(folder / "model.onnx")),
        "ONNX Runtime int8": lambda: foreign(OnnxRun(folder / "int8.onnx")),
        "OpenVINO float32": lambda: foreign(OpenVinoRun(folder / "ir" / XML)),
        "OpenVINO bfloat16": lambda: foreign(OpenVinoRun(folder / "ir" / XML, "bf16")),
        "OpenVINO int8": lambda: foreign(OpenVinoRun(folder / "int8" / XML, "bf16")),
    }
    built = {}
    for name, make in ways.items():
        start = time.perf_counter()
        try:
            built[name] = (make(), time.perf_counter() - start)
        except Exception as error:  # a runtime that is not installed, or has its own kind of error
            print(f"{name}: left out, {(str(error).splitlines() or [type(error).__name__])[0]}")
    return built


def foreign(run: nn.Module) -> Network:
    return lambda images: run(images.contiguous())


def compiled(made: Embedder, x: torch.Tensor) -> Network:
    network = FastPath(made.backbone).compile(x)
    if network is None:
        raise RuntimeError("torch.compile did not work here or changed the embeddings")
    return network


def write_exports(made: Embedder, folder: Path) -> None:
    """float32 and int8 of both runtimes, as far as they are installed."""
    interface, texts = Interface(), {"format": "marginface 1"}
    batches = calibration(made, faces(CALIBRATION, made.preprocessing.size, first=2000), interface)
    onnx, ir, integers = folder / "model.onnx", folder / "ir", folder / "int8"
    ir.mkdir()
    integers.mkdir()
    works: dict[str, Callable[[], None]] = {
        "ONNX": lambda: write_onnx(made, onnx, interface, texts),
        "ONNX int8": lambda: quantise_onnx(onnx, folder / "int8.onnx", batches),
        "OpenVINO": lambda: save_openvino(load_library("openvino").Core().read_model(onnx), ir, texts),
        "OpenVINO int8": lambda: save_openvino(quantise_openvino(ir / XML, batches), integers, texts),
    }
    for name, work in works.items():
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                work()
        except Exception as error:
            print(f"{name}: left out, {(str(error).splitlines() or [type(error).__name__])[0]}")


def race(ways: dict[str, Network], x: torch.Tensor, budget: float) -> dict[str, list[float]]:
    """Seconds of each way, all taking turns until the budget of seconds is spent."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    end = time.perf_counter() + budget
    for number in range(ROUNDS):
        if number >= 2 and time.perf_counter() > end:
            break
        for way, network in ways.items():
            start = time.perf_counter()
            network(x)
            seconds[way].append(time.perf_counter() - start)
    return seconds


def table(name: str, made: Embedder, folder: Path, batch: int, budget: float) -> list[str]:
    x = pixels(batch, made)
    out: dict[str, torch.Tensor] = {}
    path = FastPath(made.backbone)
    with torch.inference_mode():  # compiling too, which would otherwise be done once more here
        built = engines(made, folder, x, path)
        # the first pass, which also warms up
        peaks = {way: memory(lambda way=way: out.update({way: built[way][0](x)})) for way in built}
        seconds = race({way: network for way, (network, _) in built.items()}, x, budget)
    cosines = {way: float(nn.functional.cosine_similarity(y.float(), out[EAGER]).min()) for way, y in out.items()}
    medians = {way: float(np.median(times)) for way, times in seconds.items()}
    goal = GOALS.get((name, batch))
    kept = [way for way in medians if cosines[way] >= COSINE and way != EMBED]
    best = max((medians[EAGER] / medians[way], way) for way in kept)
    lines = [
        f"### batch {batch}",
        "",
        "| way | images/s | ratio | cosine to float32 | MB more while running | made in s |",
        "|---|---|---|---|---|---|",
    ]
    for way, median in medians.items():
        lines.append(
            f"| {way} | {batch / median:.1f} | {medians[EAGER] / median:.1f} | {cosines[way]:.5f} | "
            f"{peaks[way]:.0f} | {built[way][1]:.1f} |"
        )
    reached = f"; goal {goal:g}: {'reached' if best[0] >= goal else 'not reached'}" if goal else ""
    fastest = min((way for way in medians if way != EMBED), key=medians.__getitem__)
    best_of_all = f"; fastest of all: {fastest}, {medians[EAGER] / medians[fastest]:.1f} times"
    lines += ["", f"Best within cosine {COSINE}: {best[1]}, {best[0]:.1f} times{reached}{best_of_all}.", ""]
    return [
        *lines,
        f"`model.embed` of {THOUSANDS:,} images goes: {path.name}, {batch / medians[EMBED]:.1f} images/s, "
        f"{medians[EAGER] / medians[EMBED]:.1f} times; made in {built[EMBED][1]:.1f} s.",
        "",
    ]


def handful(made: Embedder) -> str:
    """What `model.embed` goes by itself where nothing pays."""
    made.embed(faces(4, made.preprocessing.size))
    return f"`model.embed` of 4 images goes: {made.path}."


def measure(name: str, batches: Sequence[int], budget: float) -> str:
    start = time.perf_counter()
    made = model(name)
    seconds = time.perf_counter() - start
    trained = f"Trained for {STEPS[name]} steps ({seconds:.0f} s)" if name in STEPS else "Random weights"
    lines = [f"## {name}", "", f"{trained}; mean cosine of different people {apart(made):.2f}.", ""]
    with tempfile.TemporaryDirectory() as folder:
        write_exports(made, Path(folder))
        for batch in batches:
            lines += table(name, made, Path(folder), batch, budget if batch > 1 else budget / 4)
    return "\n".join([*lines, handful(made), ""])


def put(file: Path, sections: dict[str, str], title: str) -> None:
    """Writes the sections into the file, in place of those of the same name."""
    parts = file.read_text(encoding="utf-8").split("\n## ")[1:] if file.exists() else []
    kept = {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}
    file.write_text("\n".join([title.rstrip() + "\n", *{**kept, **sections}.values()]), encoding="utf-8")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "an unknown CPU")
    single, half = peak(torch.float32), peak(torch.bfloat16)
    return (
        f"{torch.get_num_threads()} threads of {cpu.strip()}, torch {torch.__version__}; they multiply matrices at "
        f"{single:.0f} GFLOP/s in float32 and {half:.0f} in bfloat16 ({half / single:.1f} times)"
    )


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of a large product, the best of five: what no network can surpass."""
    a = torch.randn(2048, 2048).to(dtype)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return 2 * len(a) ** 3 / min(seconds) / 1e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[], help="1 and 32; of iresnet100 only 32")
    parser.add_argument("--seconds", type=float, default=15, help=f"of measuring a batch size, {ROUNDS} rounds at most")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.models, given.batches, given.seconds = ["small"], [1, 4], 2
    text = f"# Inference\n\n`python benchmarks/inference.py`: medians, all ways in turns in one process; {machine()}.\n"
    text += f"\n{WEIGHTS}\n"
    measured = {}
    print(text)
    for name in given.models:
        measured[name] = measure(name, given.batches or MODELS.get(name, (1, 32)), given.seconds)
        print(measured[name], flush=True)
        if given.write:  # at once: an interrupted run keeps what it has
            put(Path(__file__).with_suffix(".md"), measured, text)
