"""Folded networks give the same embeddings, and only what may be folded is."""

import copy

import pytest
import torch
from torch import Tensor, nn

from marginface.backbones import create_backbone
from marginface.backbones.folding import fold

X = torch.linspace(-1, 1, 2 * 3 * 112 * 112).view(2, 3, 112, 112)


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(("name", "left"), [("small", 0), ("mobilefacenet", 0), ("iresnet18", 9), ("ir18", 9)])
@torch.no_grad()
def test_the_embeddings_stay(name: str, left: int) -> None:
    """An iresnet keeps the norm at the head of each of its 8 blocks and the one before the embedding."""
    torch.manual_seed(0)
    network = create_backbone(name, 32).train()
    network(X)  # statistics and so norms that are no identities
    expected = network.eval()(X)
    folded = fold(copy.deepcopy(network), X[:1])
    assert norms(folded) == left
    torch.testing.assert_close(folded(X), expected, rtol=1e-4, atol=1e-5 * float(expected.norm(dim=1).max()))
    assert norms(network) > left  # the original is whole


@torch.no_grad()
def test_what_is_called_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.norm(self.conv(x))).mean((2, 3))

    network = Twice().eval()
    assert norms(fold(network, X)) == 1
