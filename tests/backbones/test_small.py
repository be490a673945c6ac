"""The quickstart's network: its shape, its cost, and that it can learn."""

import pytest
import torch
from torch import nn

from marginface.backbones.small import SmallBackbone


@pytest.mark.parametrize(("num_features", "width"), [(128, 24), (64, 8)])
def test_shape_and_options(num_features: int, width: int) -> None:
    network = SmallBackbone(num_features, width)
    assert network(torch.zeros(2, 3, 112, 112)).shape == (2, num_features)
    assert network.num_features == num_features


def test_is_small() -> None:
    network = SmallBackbone()
    assert sum(parameter.numel() for parameter in network.parameters()) < 800_000


def test_memory_layout_and_half_precision_change_little() -> None:
    torch.manual_seed(0)
    network = SmallBackbone().eval()
    images = torch.rand(4, 3, 112, 112) * 2 - 1
    plain = nn.functional.normalize(network(images))
    last = nn.functional.normalize(
        network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    )
    torch.testing.assert_close(last, plain, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = nn.functional.normalize(network(images).float())
    assert (half * plain).sum(dim=1).min() > 0.995


def test_learns() -> None:
    torch.manual_seed(0)
    network, labels = SmallBackbone(num_features=16, width=8), torch.arange(8) % 4
    images = torch.randn(4, 3, 112, 112)[labels] + 0.3 * torch.randn(8, 3, 112, 112)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(10):
        loss = nn.functional.cross_entropy(network(images)[:, :4], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
