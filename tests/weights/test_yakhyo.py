"""yakhyo's sphere nets: written out here as plain functions of their state dict, as there is no recorded output."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from marginface.weights import recognise

State = dict[str, Tensor]


def published(blocks: tuple[int, ...]) -> State:
    torch.manual_seed(0)
    state: State = {}
    channels = 3
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), start=1):
        state[f"layer{stage}.0.0.weight"] = torch.randn(width, channels, 3, 3) / (3 * channels**0.5)
        state[f"layer{stage}.0.0.bias"] = torch.randn(width) / 10
        state[f"layer{stage}.0.1.weight"] = torch.rand(width) / 2
        for i in range(1, count + 1):
            for half in "01":
                name = f"layer{stage}.{i}.block.{half}"
                state[f"{name}.0.weight"] = torch.randn(width, width, 3, 3) / (3 * width**0.5)
                state[f"{name}.1.weight"] = torch.rand(width) / 2
        channels = width
    state["fc.weight"] = torch.randn(512, 512 * 7 * 7) / 160
    state["fc.bias"] = torch.randn(512)
    return state


def reference(state: State, blocks: tuple[int, ...], x: Tensor) -> Tensor:
    for stage, count in enumerate(blocks, start=1):
        first = f"layer{stage}.0"
        x = F.conv2d(x, state[f"{first}.0.weight"], state[f"{first}.0.bias"], 2, 1)
        x = F.prelu(x, state[f"{first}.1.weight"])
        for i in range(1, count + 1):
            y = x
            for half in "01":
                name = f"layer{stage}.{i}.block.{half}"
                y = F.prelu(F.conv2d(y, state[f"{name}.0.weight"], None, 1, 1), state[f"{name}.1.weight"])
            x = x + y
    return F.linear(x.flatten(1), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("sphere20", (1, 2, 4, 1)), pytest.param("sphere36", (2, 4, 8, 2), marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_sphere_nets(name: str, blocks: tuple[int, ...]) -> None:
    state = published(blocks)
    model = recognise(state)
    assert (model.source, model.backbone, model.usage.flip) == ("yakhyo", name, "concat")
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    expected = reference(state, blocks, images)
    torch.testing.assert_close(model.build()(images), expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
