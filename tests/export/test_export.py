"""What leaves the house says the same as what stayed, in the runtime it was made for, and says what it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import marginface
from marginface.embedder import Embedder, ModelConfig, Preprocessing, unit
from marginface.errors import InputError
from marginface.export import Int8, export
from marginface.export import exporting as module
from marginface.export.deployed import Interface
from marginface.export.exporting import reopen
from marginface.export.metadata import points
from marginface.export.parity import parity
from marginface.export.quantise import HEAVY, quantise_onnx
from marginface.optional_imports import load_library

FIGURES = [
    {
        "benchmark": "lfw",
        "model": "trained network",
        "tar_at_far": [
            {"far": 0.001, "tar": 0.9, "threshold": 0.31, "reason": None},
            {"far": 1e-06, "tar": None, "threshold": None, "reason": "too few"},
        ],
    }
]


def network(preprocessing: Preprocessing | None = None) -> Embedder:
    """Small, with statistics of its own so that every layer matters."""
    torch.manual_seed(0)
    model = Embedder.create(ModelConfig("small", 16, {"width": 4}), preprocessing)
    for module_ in model.backbone.modules():
        if isinstance(module_, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module_.running_mean.normal_(0, 0.1)
            module_.running_var.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def model() -> Embedder:
    return network()


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (5, 112, 112, 3), np.uint8)


@pytest.mark.parametrize("to", ["onnx", "openvino", "pt2", "safetensors"])
def test_the_other_runtime_gives_the_same_embeddings(
    to: str, model: Embedder, faces: np.ndarray, tmp_path: Path
) -> None:
    report = export(model, tmp_path / "out", to)
    assert [row.images for row in report.parity] == ["noise", "faces"]
    assert max(row.difference for row in report.parity) <= 1e-5
    again = reopen(model, tmp_path / "out", to, report.interface)
    for count in (1, 3, 5):  # the batch is free
        expected = next(model.raw([faces[:count]]))
        np.testing.assert_allclose(next(again.raw([faces[:count]])), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_first_and_last_step_can_be_inside(to: str, faces: np.ndarray, tmp_path: Path) -> None:
    magface = network(Preprocessing(mean=0.0, std=255.0, flip="none"))
    report = export(magface, tmp_path / "out", to, unit=True)  # another preprocessing than 127.5 goes inside by itself
    assert report.interface == Interface(pixels=True, unit=True)
    if to == "onnx":  # mean 0: nothing is subtracted, and the package must still feed pixels
        assert insightface_mean_and_std(tmp_path / "out") == (0.0, 1.0)
    run = reopen(magface, tmp_path / "out", to, report.interface).backbone.run
    pixels = torch.from_numpy(faces).permute(0, 3, 1, 2).float().contiguous()
    expected = unit(next(magface.raw([faces])))
    np.testing.assert_allclose(run(pixels).detach().numpy(), expected, atol=1e-5)


@pytest.fixture(scope="module")
def onnx_files(model: Embedder, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    for pixels in (False, True):
        export(model, folder / f"{pixels}.onnx", "onnx", pixels=pixels, name="mine", results=FIGURES)
    return {pixels: folder / f"{pixels}.onnx" for pixels in (False, True)}


def insightface_mean_and_std(path: Path) -> tuple[float, float]:
    """The rule of the package's ArcFaceONNX: names of the first eight nodes."""
    names = [node.name for node in onnx.load(str(path)).graph.node[:8]]
    sub = any(name.startswith(("Sub", "_minus")) for name in names)
    mul = any(name.startswith(("Mul", "_mul")) for name in names)
    return (0.0, 1.0) if sub and mul else (127.5, 127.5)


@pytest.mark.parametrize("pixels", [False, True])
def test_insightface_feeds_it_what_it_takes(
    pixels: bool, model: Embedder, faces: np.ndarray, onnx_files: dict[bool, Path]
) -> None:
    import cv2

    mean, std = insightface_mean_and_std(onnx_files[pixels])
    assert (mean, std) == ((0.0, 1.0) if pixels else (127.5, 127.5))
    session: Any = load_library("onnxruntime").InferenceSession(str(onnx_files[pixels]))
    (entry,), (_,) = session.get_inputs(), session.get_outputs()
    assert entry.shape[2:] == [112, 112]
    bgr = [np.ascontiguousarray(face[..., ::-1]) for face in faces]  # as cv2.imread gives them
    blob = cv2.dnn.blobFromImages(bgr, 1 / std, (112, 112), (mean, mean, mean), swapRB=True)
    found = session.run(None, {entry.name: blob})[0]
    np.testing.assert_allclose(found, next(model.raw([faces], flip=False)), rtol=1e-4, atol=1e-5)


def test_a_network_that_begins_with_a_product_is_not_mistaken(tmp_path: Path) -> None:
    """timm's networks rescale their input themselves: those Sub and Mul are none of InsightFace's business."""

    class Rescaling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ((x * 0.5 + 0.5 - 0.4) / 0.2 * 0.3).mean((2, 3))

    model = Embedder(Rescaling(), ModelConfig("small", 3), Preprocessing())
    export(model, tmp_path / "a.onnx", "onnx")
    assert insightface_mean_and_std(tmp_path / "a.onnx") == (127.5, 127.5)


def test_small_constants_survive(tmp_path: Path) -> None:
    """The exporter drops what it adds to almost nothing; on the flat areas of a face that would show."""
    torch.manual_seed(0)
    rows = export(Embedder.create(ModelConfig("gradient", 16, {"width": 8})), tmp_path / "a.onnx", "onnx").parity
    assert max(row.difference for row in rows) < 1e-5


def test_a_file_says_what_it_is(model: Embedder, onnx_files: dict[bool, Path]) -> None:
    session: Any = load_library("onnxruntime").InferenceSession(str(onnx_files[True]))
    texts = session.get_modelmeta().custom_metadata_map
    assert texts["name"] == "mine"
    assert texts["input"] == "images: float32 (N, 3, 112, 112), RGB, 0 to 255"
    assert json.loads(texts["thresholds"]) == {"lfw": {"0.001": 0.31}}
    assert json.loads(texts["template"])[0] == [38.2946, 51.6963]
    assert json.loads(texts["description"])["model"]["backbone"] == "small"


def test_template_points_lie_in_the_image_the_network_takes() -> None:
    narrow = Embedder.create(ModelConfig("small", 4, {"width": 4}), Preprocessing(112, width=96))
    np.testing.assert_allclose(points(narrow)[0], [30.2946, 51.6963])
    stretched = network(Preprocessing(128, template="openvino"))
    np.testing.assert_allclose(points(stretched)[0], [30.2946 / 96 * 128, 51.6963 / 112 * 128])


def test_a_difference_is_refused_and_nothing_is_left(
    model: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Embedder.create(model.config)
    monkeypatch.setattr(module, "reopen", lambda *_: other)
    with pytest.raises(InputError, match=r"differs from the model by .* of an embedding's length on noise"):
        export(model, tmp_path / "a.safetensors", "safetensors")
    assert not list(tmp_path.iterdir())


def test_parity_sees_one_wrong_number(model: Embedder) -> None:
    class Off(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            e = model.backbone.eval()(x)
            e[:, 0] += 3e-4 * e.norm(dim=1)
            return e

    rows = parity(model, Embedder(Off(), model.config), unit_length=False)
    assert all(row.difference == pytest.approx(3e-4, rel=0.05) for row in rows)


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("torchscript", {}, "not a format; choose onnx, openvino, pt2"),
        ("safetensors", {"pixels": True}, "holds weights only"),
        ("insightface-pth", {}, "InsightFace has no SmallBackbone"),
        ("pt2", {"int8": Int8(np.zeros((1, 112, 112, 3), np.uint8), lambda *_: 1.0)}, "--int8 goes with --to onnx"),
    ],
)
def test_what_cannot_be_written_is_said(
    to: str, options: dict[str, Any], message: str, model: Embedder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export(model, tmp_path / "out", to, **options)
    assert not list(tmp_path.iterdir())


def test_exported_weights_open_as_the_model(faces: np.ndarray, tmp_path: Path) -> None:
    """With its preprocessing, which no key shows."""
    model = network(Preprocessing(mean=0, std=255, flip="none", quality="norm"))
    export(model, tmp_path / "weights", "safetensors")
    again = marginface.load(tmp_path / "weights")
    assert (again.config, again.preprocessing) == (model.config, model.preprocessing)
    np.testing.assert_array_equal(next(again.raw([faces])), next(model.raw([faces])))


def test_insightface_keys(tmp_path: Path) -> None:
    torch.manual_seed(0)
    mobile = Embedder.create(ModelConfig("mobilefacenet", 8))
    export(mobile, tmp_path / "backbone.pth", "insightface-pth")
    state = torch.load(tmp_path / "backbone.pth", weights_only=True)
    assert state.keys() == mobile.backbone.state_dict().keys()


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8_is_close_and_judged(to: str, model: Embedder, faces: np.ndarray, tmp_path: Path) -> None:
    seen = []

    def accuracy(tried: Embedder, progress: Any) -> float:
        seen.append(unit(next(tried.raw([faces], flip=False))))
        return 0.95 if len(seen) % 2 else 0.9485

    told: dict[str, tuple[int, int]] = {}

    def begin(text: str) -> Any:
        return lambda done, total: told.update({text: (done, total)})

    report = export(model, tmp_path / "out", to, int8=Int8(faces, accuracy, begin=begin))
    assert told == {"ranges of activations": (len(faces), len(faces))}
    assert report.accuracies == pytest.approx((95, 94.85))
    assert (seen[0] * seen[1]).sum(1).min() > 0.99  # integers, but the same faces
    assert np.abs(seen[0] - seen[1]).max() > 1e-5
    if to == "onnx":
        ops = [node.op_type for node in onnx.load(str(tmp_path / "out")).graph.node]
        assert ops.count("QuantizeLinear") >= 3
    else:
        network = load_library("openvino").Core().read_model(tmp_path / "out" / "model.xml")
        layers = [op for op in network.get_ordered_ops() if op.get_type_name() in HEAVY]
        inputs = [{value.get_node().get_type_name() for value in op.input_values()} for op in layers]
        integers = ["FakeQuantize" in types for types in inputs]
        assert (integers[0], any(integers[1:-1]), integers[-1]) == (False, True, False)
    with pytest.raises(InputError, match=r"int8 takes the accuracy from 95\.00 to 94\.85 %, more than the 0\.1 points"):
        export(model, tmp_path / "worse", to, int8=Int8(faces, accuracy, max_drop=0.1))
    assert not (tmp_path / "worse").exists()


def test_convolutions_of_single_channels_stay_float_in_onnx(tmp_path: Path) -> None:
    """ONNX Runtime is slower there in integers."""
    helper, rng = onnx.helper, np.random.default_rng(0)
    weights, nodes, before = [], [], "images"
    for name, shape, group in (
        ("a", (4, 3, 1, 1), 1),
        ("b", (4, 1, 3, 3), 4),
        ("c", (4, 4, 1, 1), 1),
        ("d", (2, 4, 1, 1), 1),
    ):
        weights.append(onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), f"{name}_w"))
        nodes.append(helper.make_node("Conv", [before, f"{name}_w"], [name], name=name, group=group))
        before = name
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", None, None, None]) for name in ("images", "d")
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "f.onnx")
    quantise_onnx(tmp_path / "f.onnx", tmp_path / "q.onnx", [rng.standard_normal((2, 3, 8, 8)).astype(np.float32)])
    made = onnx.load(tmp_path / "q.onnx").graph.node
    integers = {output for node in made if node.op_type == "DequantizeLinear" for output in node.output}
    assert {node.name: node.input[1] in integers for node in made if node.op_type == "Conv"} == {
        "a": False, "b": False, "c": True, "d": False,
    }  # fmt: skip
