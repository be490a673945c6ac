"""Embedding speed: the papers' eager float32 loop against every other way through the same network, in one run.

Claims on 2 cores at batch 32, against eager float32 NCHW: 7 times for iresnet50, 5 times for mobilefacenet; at batch
1, 4 and 2 times. Run `python benchmarks/inference.py` (5 minutes; mobilefacenet and iresnet50, of which two minutes
are compiling the first time), `--models iresnet100` for the third, `--quick` for a look at a tiny network. `--write`
puts the tables of these models into benchmarks/inference.md.
"""

import argparse
import copy
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from marginface.backbones.fast import BFLOAT16, COMPILED, FastPath
from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.export.deployed import Interface
from marginface.export.onnx_file import OnnxRun
from marginface.export.onnx_file import write as write_onnx
from marginface.export.openvino_ir import XML, OpenVinoRun
from marginface.export.openvino_ir import save as save_openvino
from marginface.export.openvino_ir import write as write_openvino
from marginface.export.quantise import calibration, quantise_onnx, quantise_openvino
from marginface.readers.synthetic import SyntheticFaces

MODELS = ("mobilefacenet", "iresnet50")
EAGER = "eager float32 NCHW (the papers)"
GOALS = {("iresnet50", 32): 7.0, ("mobilefacenet", 32): 5.0, ("iresnet50", 1): 4.0, ("mobilefacenet", 1): 2.0}
Network = Callable[[torch.Tensor], torch.Tensor]


def model(name: str) -> Embedder:
    """Fresh weights whose activations stay in range: batch norms have seen the faces."""
    torch.manual_seed(0)
    made = Embedder.create(ModelConfig(name))
    made.backbone.train()
    with torch.no_grad():
        for _ in range(2):
            made.backbone(pixels(8, made))
    made.backbone.eval()
    return made


def faces(count: int, size: int = 112) -> np.ndarray:
    return np.stack([np.asarray(r.image) for r in SyntheticFaces(count, 1, size=size).read(range(count))])


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
    reset.write_text("5")
    before = field("VmRSS")
    work()
    return field("VmHWM") - before


def engines(made: Embedder, folder: Path, x: torch.Tensor) -> dict[str, tuple[Network, float]]:
    """Name -> (the network, seconds it took to make)."""
    plain = copy.deepcopy(made.backbone).eval()
    made.backbone.to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[], Network]] = {
        EAGER: lambda: lambda images: plain(images.contiguous()),
        BFLOAT16: lambda: FastPath(made.backbone).bfloat16,
        COMPILED: lambda: compiled(made, x),
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
        except (InputError, RuntimeError, OSError) as error:
            print(f"{name}: left out, {str(error).splitlines()[0]}")
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
    batches = calibration(made, faces(64), interface)
    for folder_ in ("ir", "int8"):
        (folder / folder_).mkdir()
    integers = folder / "int8"
    for work in (
        lambda: write_onnx(made, folder / "model.onnx", interface, texts),
        lambda: quantise_onnx(folder / "model.onnx", folder / "int8.onnx", batches),
        lambda: write_openvino(made, folder / "ir", interface, texts),
        lambda: save_openvino(quantise_openvino(folder / "ir" / XML, batches), integers, texts),
    ):
        try:
            work()
        except InputError as error:
            print(f"left out: {error}")


def table(name: str, made: Embedder, folder: Path, batch: int, rounds: int) -> list[str]:
    x = pixels(batch, made)
    built = engines(made, folder, x)
    seconds: dict[str, list[float]] = {way: [] for way in built}
    with torch.inference_mode():
        expected = built[EAGER][0](x)
        peaks = {way: memory(lambda network=network: network(x)) for way, (network, _) in built.items()}
        for _ in range(rounds):
            for way, (network, _) in built.items():
                start = time.perf_counter()
                network(x)
                seconds[way].append(time.perf_counter() - start)
        cosines = {
            way: float(nn.functional.cosine_similarity(network(x).float(), expected).min())
            for way, (network, _) in built.items()
        }
    medians = {way: sorted(times)[rounds // 2] for way, times in seconds.items()}
    goal = GOALS.get((name, batch))
    best = max(medians[EAGER] / value for way, value in medians.items() if cosines[way] >= 0.9995)
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
    reached = f"; goal {goal:g}: {'reached' if best >= goal else 'not reached'}" if goal else ""
    return [*lines, "", f"Best within cosine 0.9995: {best:.1f} times{reached}.", ""]


def chosen(made: Embedder) -> str:
    """What `model.embed` goes by itself, for a handful of images."""
    made.embed(faces(4))
    return f"`model.embed` of 4 images goes: {made.path}."


def measure(name: str, batches: list[int], rounds: int) -> str:
    made = model(name)
    lines = [f"## {name}", ""]
    with tempfile.TemporaryDirectory() as folder:
        write_exports(made, Path(folder))
        for batch in batches:
            lines += table(name, made, Path(folder), batch, rounds if batch < 8 else max(3, rounds // 4))
    return "\n".join([*lines, chosen(made), ""])


def put(file: Path, sections: dict[str, str], title: str) -> None:
    """Writes the sections into the file, in place of those of the same name."""
    old = file.read_text(encoding="utf-8") if file.exists() else title
    head, *parts = old.split("\n## ")
    kept = {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}
    file.write_text("\n".join([head.rstrip() + "\n", *{**kept, **sections}.values()]), encoding="utf-8")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "an unknown CPU")
    return f"{torch.get_num_threads()} threads of {cpu.strip()}, torch {torch.__version__}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--rounds", type=int, default=20, help="medians of these; a quarter at large batches")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.models, given.batches, given.rounds = ["small"], [1, 4], 3
    measured = {name: measure(name, given.batches, given.rounds) for name in given.models}
    text = f"# Inference\n\nMedians, all ways interleaved in one process; {machine()}.\n"
    print("\n".join([text, *measured.values()]))
    if given.write:
        put(Path(__file__).with_suffix(".md"), measured, text)
