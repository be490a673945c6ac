"""ONNX, for ONNX Runtime and the `insightface` package."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.export.deployed import Interface, program
from marginface.filenames import utf8_name
from marginface.optional_imports import load_library

LIMIT = 2**31  # bytes, of an ONNX file
OPSET = 18


def write(model: Embedder, path: Path, interface: Interface, texts: dict[str, str]) -> None:
    """One file with the weights inside, and a free batch size. Raises InputError for what ONNX cannot hold."""
    load_library("onnxscript", "this format")
    helper = load_library("onnx.helper", "this format")
    if sum(value.numel() * value.element_size() for value in model.backbone.state_dict().values()) >= LIMIT:
        raise InputError(f"{model.config.backbone} is larger than the 2 GB an ONNX file can hold; export it to pt2")
    with _quietly():
        exported = torch.onnx.export(
            program(model, interface), input_names=["images"], output_names=["embeddings"], opset_version=OPSET
        )
    assert exported is not None
    graph: Any = exported.model_proto
    _name_nodes(graph, interface)
    helper.set_model_props(graph, texts)
    path.write_bytes(graph.SerializeToString())


def _name_nodes(graph: Any, interface: Interface) -> None:
    """The insightface package feeds pixels where names among the first eight begin with Sub and Mul, and otherwise
    (v - 127.5) / 127.5. It asks for names only: where one of the two steps was folded away they stand all the same,
    and no other product or difference may carry them."""
    for number, node in enumerate(graph.graph.node):
        node.name = f"net_{number}_{node.op_type}"
    if interface.pixels:
        graph.graph.node[0].name, graph.graph.node[1].name = "Sub_pixels", "Mul_pixels"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter tells its life on every channel."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger = logging.getLogger("torch.onnx")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


class OnnxRun(nn.Module):
    """ONNX Runtime on the CPU: float32 (N, 3, H, W) -> (N, D)."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__()
        runtime = load_library("onnxruntime", "this format")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        with utf8_name(path) as name:
            self.session: Any = runtime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {self.input: images.numpy()})[0])
