"""Every reference network: the same state dict, the same embeddings, the same gradients."""

import numpy as np
import pytest
import torch
from torch import nn

import golden_backbones as golden
from golden_files import arrays, entry
from marginface.backbones import Backbone, create_backbone

TRAINED = [
    pytest.param(name, marks=[pytest.mark.slow] if entry(name)["parameters"] > golden.LIGHT / 10 else [])
    for name in golden.ENTRIES
    if "train_mode" in entry(name)
]


def reference_layout(name: str) -> list[tuple[str, tuple[int, ...], str]]:
    # SphereFace's network carries its classifier, which is no part of a backbone here
    return [row for row in golden.layout(name) if row[0] != "fc6.weight"]


def filled(name: str, dtype: torch.dtype, **options: object) -> Backbone:
    ours, own = golden.ours(name)
    with torch.device("meta"):
        backbone = create_backbone(ours, **own | options)
    state = golden.state_dict(name, dtype)
    backbone.load_state_dict({key: state[key] for key, _, _ in reference_layout(name)}, assign=True)
    return backbone


def role(module: nn.Module, leaf: str) -> str:
    if leaf == "num_batches_tracked":
        return "counter"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return {"running_mean": "bn_mean", "running_var": "bn_var"}.get(leaf, f"bn_{leaf}")
    if leaf == "bias":
        return "bias"
    kinds = {nn.Conv2d: "conv", nn.Linear: "linear", nn.PReLU: "prelu", nn.LayerNorm: "ln_weight"}
    return kinds.get(type(module), "token")


@pytest.mark.parametrize("name", golden.ENTRIES)
def test_layout_is_the_references(name: str) -> None:
    ours, options = golden.ours(name)
    with torch.device("meta"):
        backbone = create_backbone(ours, **options)
    rows = []
    for key, value in backbone.state_dict().items():
        path, _, leaf = key.rpartition(".")
        rows.append((key, tuple(value.shape), role(backbone.get_submodule(path), leaf)))
    assert rows == reference_layout(name)

    classifier = sum(np.prod(shape) for key, shape, _ in golden.layout(name) if key == "fc6.weight")
    parameters = list(backbone.parameters())
    expected = entry(name)
    assert sum(p.numel() for p in parameters) == expected["parameters"] - classifier
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    assert trainable == expected["trainable_parameters"] - classifier
    assert sum(b.numel() for b in backbone.buffers()) == expected["buffer_elements"]


@pytest.mark.parametrize("name", golden.BY_DAY)
@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)])
@torch.no_grad()
def test_embeddings_are_the_references(name: str, dtype: torch.dtype) -> None:
    backbone = filled(name, dtype).eval()
    output = backbone(golden.images(name).to(dtype)).double().numpy()
    assert np.abs(output - golden.embeddings(name)).max() <= golden.tolerance(name, dtype)


@pytest.mark.parametrize("name", [name for name in golden.BY_DAY if "output_batch1" in arrays(name.values[0])])
@torch.no_grad()
def test_one_image_is_embedded_as_in_a_batch(name: str) -> None:
    """One reference leaves out its last batch norm for a single image; that is not followed."""
    single = filled(name, torch.float64).eval()(golden.images(name)[:1]).numpy()
    assert np.abs(single - golden.embeddings(name)[:1]).max() <= golden.tolerance(name, torch.float64)


@pytest.mark.parametrize("name", TRAINED)
def test_training_step_is_the_references(name: str) -> None:
    """In float64: in float32 the first gradient hangs on which side of a PReLU an activation rounds to."""
    recorded, places = arrays(name), entry(name)["train_mode"]
    backbone = filled(name, torch.float64).train()
    output = backbone(golden.images(name, batch=6))
    gradient = golden.h32(output.numel(), golden.OUTPUT_GRADIENT, entry(name)["seed"])
    output.backward(torch.from_numpy(gradient.reshape(output.shape)))

    got = {
        "train_output": output,
        "train_grad_first_conv": backbone.get_parameter(places["first_conv"]).grad,
        "train_grad_last_linear_rows0to3": backbone.get_parameter(places["last_linear"]).grad[:4],
    }
    for which in ("first", "last"):
        norm = backbone.get_submodule(places[f"{which}_bn"])
        got[f"train_{which}_bn_running_mean"] = norm.running_mean
        got[f"train_{which}_bn_running_var"] = norm.running_var
    for key, value in got.items():
        difference = np.abs(value.detach().numpy() - recorded[key]).max()
        assert difference <= golden.train_tolerance(name) * np.abs(recorded[key]).max(), key
