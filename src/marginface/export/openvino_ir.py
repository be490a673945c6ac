"""OpenVINO's intermediate representation: model.xml and model.bin."""

import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from marginface.embedder import Embedder
from marginface.export import onnx_file
from marginface.export.deployed import Interface
from marginface.export.extras import library

XML = "model.xml"
Precision = Literal["f32", "bf16", "f16"]


def write(model: Embedder, folder: Path, interface: Interface, texts: dict[str, str]) -> None:
    """Both files into a folder that is there; float32 weights. Goes by way of ONNX, so both are one graph."""
    openvino = library("openvino", "openvino")
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.onnx"
        onnx_file.write(model, file, interface, texts)
        network = openvino.convert_model(file)
    save(network, folder, texts)


def save(network: Any, folder: Path, texts: dict[str, str]) -> None:
    for key, text in texts.items():
        network.set_rt_info(text, ["marginface", key.replace(" ", "_")])
    library("openvino", "openvino").save_model(network, folder / XML, compress_to_fp16=False)


class OpenVinoRun(nn.Module):
    """OpenVINO on the CPU: float32 (N, 3, H, W) -> (N, D). Left alone it would choose bfloat16 where it is faster."""

    def __init__(self, path: Path, precision: Precision = "f32", threads: int | None = None) -> None:
        super().__init__()
        hints = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.compiled: Any = library("openvino", "openvino").Core().compile_model(path, "CPU", hints)

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self.compiled(images.numpy())[0]))
