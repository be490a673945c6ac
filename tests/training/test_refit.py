"""The refitted layer against SciPy-free truth: known covariances, exact folding, unseen people told apart better."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from marginface.errors import InputError
from marginface.training.refit import check_refit, discriminants, refit_embedding


def people(count: int, images: int, seed: int, dimensions: int = 12) -> tuple[Tensor, Tensor]:
    """Gaussian people who differ in the first three coordinates, below a larger variation of their pictures."""
    random = np.random.default_rng(seed)
    between, within = np.r_[np.ones(3), np.zeros(dimensions - 3)], np.r_[np.full(3, 0.3), np.full(dimensions - 3, 3.0)]
    mix = np.linalg.qr(np.random.default_rng(9).normal(size=(dimensions, dimensions)))[0]
    labels = np.repeat(np.arange(count), images)
    x = (
        random.normal(size=(count, dimensions))[labels] * between
        + random.normal(size=(len(labels), dimensions)) * within
    )
    return torch.tensor(x @ mix.T, dtype=torch.float32), torch.tensor(labels)


def auc(x: Tensor, labels: Tensor) -> float:
    x = nn.functional.normalize(x.double())
    scores, same = x @ x.T, labels[:, None] == labels
    upper = torch.ones_like(same).triu(1)
    genuine, impostor = scores[same & upper], scores[~same & upper]
    return float((genuine[:, None] > impostor[None, ::7]).double().mean())


class Net(nn.Module):
    """An identity on 'images' (n, 1, 1, d), then the tail that is refitted."""

    def __init__(self, affine: bool, bias: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 5, bias=bias)
        self.features = nn.BatchNorm1d(5, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.features(self.fc(x.flatten(1)))
        return out


@pytest.mark.parametrize(("affine", "bias"), [(False, False), (True, True)])
def test_the_network_then_computes_the_discriminants(affine: bool, bias: bool) -> None:
    x, labels = people(200, 4, seed=0)
    images = x[:, None, None, :]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        # a mirror image of mirrored pairs averages to something symmetric, as with real images
        yield from zip(images.split(100), labels.split(100), strict=True)

    net = Net(affine, bias)
    refit_embedding(net, batches, shrinkage=0.1)
    features = (x + x.flip(1)) / 2
    matrix = discriminants(features - features.mean(0), labels, 0.1, 5)
    torch.testing.assert_close(net.eval()(images), (x - features.mean(0)) @ matrix, atol=1e-4, rtol=1e-4)


def test_people_never_seen_are_told_apart_better() -> None:
    x, labels = people(300, 4, seed=0)
    strangers, names = people(100, 4, seed=1)
    matrix = discriminants(x - x.mean(0), labels, 0.05, 5)
    before, after = auc(strangers, names), auc((strangers - x.mean(0)) @ matrix, names)
    assert before < 0.7
    assert after > 0.9


def test_weights_are_those_of_the_known_covariances() -> None:
    """Without shrinkage and with many people, each direction has variance between/within + between²/(within·total)."""
    x, labels = people(20000, 4, seed=2)
    projected = (x - x.mean(0)) @ discriminants(x - x.mean(0), labels, 0.0, 3)
    # within covariance 1 in LDA coordinates, times the weight (ev - 1) / ev with ev = 1 + 1 / 0.09
    ev = 1 + 1 / 0.09
    expected = ev * (ev - 1) / ev
    torch.testing.assert_close(projected.var(0), torch.full((3,), expected), rtol=0.05, atol=0)


def test_what_cannot_be_refitted_is_refused() -> None:
    with pytest.raises(InputError, match="ends in a linear layer and a batch norm"):
        check_refit(nn.Sequential(nn.Linear(3, 2)), np.zeros(10, np.int64))
    with pytest.raises(InputError, match="in memory"):
        check_refit(Net(False, False), np.broadcast_to(np.int64(0), 10**9))
    with pytest.raises(InputError, match="two images or more"):
        check_refit(Net(False, False), np.array([-1, -1, 0, 3, 5]))
    with pytest.raises(InputError, match="two images or more"):
        discriminants(torch.randn(5, 4), torch.arange(5), 0.1, 2)
