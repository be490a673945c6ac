"""Eight-bit integers after training: ranges of the activations are read off real faces."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marginface.backbones.preprocess import normalise
from marginface.embedder import Embedder
from marginface.export.deployed import Interface
from marginface.optional_imports import load_library

CALIBRATION_BATCH = 8
HEAVY = ("Convolution", "GroupConvolution", "MatMul")  # in OpenVINO's words
Progress = Callable[[int, int], None]  # told how many of how many images have been seen


def calibration(model: Embedder, images: np.ndarray, interface: Interface) -> list[np.ndarray]:
    """RGB uint8 (N, H, W, 3) as batches of what the network takes: float32 (n, 3, H, W)."""
    batches = []
    for start in range(0, len(images), CALIBRATION_BATCH):
        x = torch.from_numpy(model.checked(images[start : start + CALIBRATION_BATCH]))
        mean, std = (0.0, 1.0) if interface.pixels else (model.preprocessing.mean, model.preprocessing.std)
        batches.append(normalise(x, mean, std).contiguous().numpy())
    return batches


def quantise_onnx(source: Path, target: Path, batches: Sequence[np.ndarray], progress: Progress | None = None) -> None:
    """Weights per channel, activations per tensor, as QDQ nodes. The first convolution and the embedding layer stay
    float32: they see pixels and make the embedding, and are hardly any of the work. So do convolutions of single
    channels, which ONNX Runtime computes more slowly in integers: mobilefacenet was slower than in float32."""
    quantization = load_library("onnxruntime.quantization", "this format")
    onnx = load_library("onnx", "this format")
    graph = onnx.load(str(source)).graph
    heavy = [node.name for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    logging.disable(logging.WARNING)  # advice about a preparation that the exporter has already done
    try:
        quantization.quantize_static(
            str(source),
            str(target),
            _Batches(batches, graph.input[0].name, progress),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=[heavy[0], heavy[-1], *(node.name for node in graph.node if _is_grouped(node))],
        )
    finally:
        logging.disable(logging.NOTSET)


def _is_grouped(node: Any) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def quantise_openvino(xml: Path, batches: Sequence[np.ndarray], progress: Progress | None = None) -> Any:
    """The network of an IR with int8 weights and activations, by NNCF; the same layers as in ONNX stay float32."""
    nncf = load_library("nncf", "this format")
    network = load_library("openvino", "this format").Core().read_model(xml)
    nncf.set_log_level("ERROR")
    float32 = nncf.IgnoredScope(names=_float32(network), validate=False)
    data = nncf.Dataset(_Again(batches, progress))
    # the correction of biases moved the embeddings of a trained network to cosine 0.9989; without it they keep 0.9997
    advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=True)
    return nncf.quantize(
        network,
        data,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(batches),
        ignored_scope=float32,
        advanced_parameters=advanced,
    )


def _float32(network: Any) -> list[str]:
    """Names of what is made of pixels before any layer of weights, of the first such layer, and of the last.

    Hand-made features, such as the oriented gradients of `gradient`, do not survive eight bits: they are differences
    of pixels, and accuracy on LFW pairs fell from 93 to 79 %.
    """
    deep: set[str] = set()  # what comes after a layer of weights
    names, last = [], ""
    for op in network.get_ordered_ops():
        name, inputs = op.get_friendly_name(), [value.get_node() for value in op.input_values()]
        if any(before.get_friendly_name() in deep or before.get_type_name() in HEAVY for before in inputs):
            deep.add(name)
        elif inputs:  # neither the images nor a constant
            names.append(name)
        if op.get_type_name() in HEAVY:
            last = name
    return [*names, last]


class _Batches:
    """What ONNX Runtime's calibration asks for."""

    def __init__(self, batches: Sequence[np.ndarray], name: str, progress: Progress | None) -> None:
        self._batches, self._name, self._progress = batches, name, progress
        self.rewind()

    def rewind(self) -> None:
        self._left: Iterator[np.ndarray] = _told(self._batches, self._progress)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._left, None)
        return None if batch is None else {self._name: batch}


class _Again:
    """What NNCF asks for: the batches from the beginning, as often as it likes."""

    def __init__(self, batches: Sequence[np.ndarray], progress: Progress | None) -> None:
        self._batches, self._progress = batches, progress

    def __iter__(self) -> Iterator[np.ndarray]:
        return _told(self._batches, self._progress)


def _told(batches: Sequence[np.ndarray], progress: Progress | None) -> Iterator[np.ndarray]:
    """The batches; each counts as seen when it is asked for, as NNCF asks no more after the last."""
    done, total = 0, sum(map(len, batches))
    for batch in batches:
        done += len(batch)
        if progress:
            progress(done, total)
        yield batch
