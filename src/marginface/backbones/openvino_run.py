"""OpenVINO's runtime on the CPU, for a network of torch or a file. Called by `fast` and the OpenVINO export."""

import threading
import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from marginface.optional_imports import load_library

Precision = Literal["f32", "bf16", "f16"]


class OpenVinoRun(nn.Module):
    """Float32 (N, 3, H, W) on the CPU -> float32 (N, D).

    network: the path of model.xml, or what `from_torch` made. precision: of the products; left alone OpenVINO would
    choose bfloat16 where it is faster. threads: torch's number where None. Raises InputError without openvino.
    """

    def __init__(self, network: Any, precision: Precision = "f32", threads: int | None = None) -> None:
        super().__init__()
        hints = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.compiled: Any = load_library("openvino").Core().compile_model(network, "CPU", hints)
        self._turn = threading.Lock()  # a second thread would be told that the request is busy

    def forward(self, images: Tensor) -> Tensor:
        with self._turn:
            return torch.from_numpy(np.array(self.compiled(images.contiguous().numpy())[0]))


def from_torch(backbone: nn.Module, x: Tensor) -> Any:
    """OpenVINO's graph of `backbone`, in evaluation mode, for any number of images like `x`, float32 (N, 3, H, W)."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of sizes that become constants: `fast` tries two numbers of images
        trace: Any = torch.jit.trace  # it has no types
        traced = trace(backbone, x.contiguous(), check_trace=False)  # the check would take as long as the rest
        return load_library("openvino").convert_model(traced, input=[-1, *x.shape[1:]])
