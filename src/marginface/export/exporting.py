"""The export itself: write, open again, compare, and only then put it in its place."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from marginface.backbones import Backbone
from marginface.backbones.openvino_run import OpenVinoRun
from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.export import onnx_file, openvino_ir
from marginface.export.deployed import Foreign, Interface, program
from marginface.export.metadata import metadata
from marginface.export.parity import LIMIT, Parity, parity
from marginface.export.quantise import Progress, calibration, quantise_onnx, quantise_openvino
from marginface.filenames import utf8_name
from marginface.files import create_file, replace_folder
from marginface.tensor_file import check_finite, write_tensors
from marginface.weights import import_checkpoint, to_embedder
from marginface.weights.to_insightface import insightface_state

FORMATS = ("onnx", "openvino", "pt2", "safetensors", "insightface-pth")
QUANTISED = ("onnx", "openvino")
Accuracy = Callable[[Embedder, Progress], float]


def _silent(_: str) -> Progress:
    return lambda done, total: None


@dataclass(frozen=True)
class Int8:
    """How to make integers of the weights.

    faces: RGB uint8 (N, H, W, 3) to read the ranges off. accuracy: of a model on a benchmark, 0 to 1.
    max_drop: points of a hundred it may lose. begin: told what comes next, it returns what is told the progress.
    """

    faces: np.ndarray
    accuracy: Accuracy
    max_drop: float = 0.2
    begin: Callable[[str], Progress] = _silent


@dataclass(frozen=True)
class Report:
    """parity: of float32 exports. accuracies: in percent, before and after int8."""

    interface: Interface
    parity: list[Parity] = field(default_factory=list)
    accuracies: tuple[float, float] | None = None


def export(
    model: Embedder,
    path: str | Path,
    to: str,
    *,
    pixels: bool | None = None,
    unit: bool = False,
    name: str = "",
    results: list[dict[str, Any]] | None = None,
    int8: Int8 | None = None,
    overwrite: bool = False,
    reads: Sequence[str | Path] = (),
) -> Report:
    """Writes `model` to `path`: a file, for openvino a folder with model.xml and model.bin.

    to: one of FORMATS. pixels: normalise inside the graph; None does so where InsightFace's (v - 127.5) / 127.5 is
    not the model's. unit: embeddings leave with length 1. results: figures of an evaluation, for the thresholds.
    overwrite: replace a file that exists, or a folder that marginface wrote. reads: what must not be replaced all
    the same, as the model came from there.
    Raises InputError, and leaves nothing behind, where the exported network differs by more than 1e-4 of the
    embedding's length, int8 loses more than it may, or `path` exists and may not be replaced.
    """
    if to not in FORMATS:
        raise InputError(f"--to {to}: not a format; choose {', '.join(FORMATS)}")
    if int8 is not None and to not in QUANTISED:
        raise InputError(f"--int8 goes with --to {' or '.join(QUANTISED)}, not {to}")
    check_finite(model.backbone.state_dict(), model.config.backbone)
    interface = _interface(model, to, pixels, unit)
    texts = metadata(model, name or model.config.backbone, interface, results or [])
    place = replace_folder if to == "openvino" else create_file
    with place(path, overwrite, reads) as temporary:
        _write(model, temporary, to, interface, texts)
        again = reopen(model, temporary, to, interface)
        rows = parity(model, again, interface.unit)
        _refuse_difference(rows, path)
        if int8 is None:
            return Report(interface, rows)
        # of what was written: it says the same as the model, several times as fast
        before = 100 * int8.accuracy(again, int8.begin("accuracy in float32"))
        _quantise(model, temporary, to, interface, texts, int8)
        after = 100 * int8.accuracy(reopen(model, temporary, to, interface), int8.begin("accuracy in int8"))
        if before - after > int8.max_drop:
            raise InputError(
                f"{path}: int8 takes the accuracy from {before:.2f} to {after:.2f} %, more than the "
                f"{int8.max_drop:g} points allowed; give more calibration faces, or allow it with --max_drop"
            )
        return Report(interface, rows, (before, after))


def _interface(model: Embedder, to: str, pixels: bool | None, unit: bool) -> Interface:
    if to in ("safetensors", "insightface-pth"):
        if pixels or unit:
            raise InputError(f"--to {to} holds weights only: normalising cannot be put inside; choose onnx or pt2")
        return Interface()
    usual = (model.preprocessing.mean, model.preprocessing.std) == (127.5, 127.5)
    return Interface(not usual if pixels is None else pixels, unit)


def _write(model: Embedder, path: Path, to: str, interface: Interface, texts: dict[str, str]) -> None:
    if to == "onnx":
        onnx_file.write(model, path, interface, texts)
    elif to == "openvino":
        openvino_ir.write(model, path, interface, texts)
    elif to == "pt2":
        content = io.BytesIO()  # on a full disk PyTorch would end the process
        torch.export.save(program(model, interface), content, extra_files=texts)
        path.write_bytes(content.getbuffer())
    elif to == "safetensors":
        write_tensors(path, model.backbone.state_dict(), texts)
    elif isinstance(model.backbone, Backbone):
        content = io.BytesIO()
        torch.save(insightface_state(model.backbone, model.preprocessing.mean, model.preprocessing.std), content)
        path.write_bytes(content.getbuffer())
    else:
        raise InputError("an exported network cannot be exported again: give the model it was made from")


def reopen(model: Embedder, path: Path, to: str, interface: Interface) -> Embedder:
    """What was written, in its own runtime, behind the same preprocessing."""
    if to == "safetensors":
        again = Embedder.create(model.config, model.preprocessing)
        with utf8_name(path) as name:
            again.backbone.load_state_dict(load_file(name))
        return again
    if to == "insightface-pth":
        return to_embedder(import_checkpoint(path, source="insightface"), path.name)
    run: torch.nn.Module
    if to == "onnx":
        run = onnx_file.OnnxRun(path)
    elif to == "openvino":
        run = OpenVinoRun(path / openvino_ir.XML)
    else:
        with path.open("rb") as file:
            run = torch.export.load(file).module()
    return Embedder(Foreign(run, model.preprocessing, interface), model.config, model.preprocessing, model.notes)


def _refuse_difference(rows: list[Parity], path: str | Path) -> None:
    for row in rows:
        if not row.difference <= LIMIT:
            raise InputError(
                f"{path}: the exported network differs from the model by {row.difference:.1e} of an embedding's "
                f"length on {row.images} (cosine {row.cosine:.6f}), more than {LIMIT:g}; nothing was written"
            )


def _quantise(model: Embedder, path: Path, to: str, interface: Interface, texts: dict[str, str], int8: Int8) -> None:
    batches, progress = calibration(model, int8.faces, interface), int8.begin("ranges of activations")
    if to == "onnx":
        quantise_onnx(path, path, batches, progress)
    else:
        network = quantise_openvino(path / openvino_ir.XML, batches, progress)
        for file in path.iterdir():
            file.unlink()
        openvino_ir.save(network, path, texts)
