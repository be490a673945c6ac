"""The reference engine against loops and torch's own functions; the loss of everything else is compared with it."""

import math

import pytest
import torch
import torch.nn.functional as F

from marginface.margins import Margin, create_margin
from marginface.softmax.binary import binary_logits, binary_loss
from marginface.softmax.dense import dense_logits, dense_loss, dense_products, focal, normalise


def margin_of(name: str, **options: object) -> Margin:
    margin = create_margin(name, **options)
    assert isinstance(margin, Margin)
    return margin


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 4, generator=generator, dtype=torch.float64) * 5
    weight = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return x, weight, torch.tensor([0, 1, 2, -1, 4, 5, 99])


def test_normalise_agrees_with_torch(batch: tuple) -> None:
    unit, norms = normalise(batch[0])
    torch.testing.assert_close(unit, F.normalize(batch[0]))
    torch.testing.assert_close(norms, batch[0].norm(dim=1))
    torch.autograd.gradcheck(normalise, batch[0].requires_grad_())


@pytest.mark.parametrize("size", [1e-10, 1e-3, 1e20, 1e38])
def test_normalise_keeps_directions_of_any_size(size: float) -> None:
    unit, norms = normalise(torch.tensor([[0.6, -0.8]]) * size)
    torch.testing.assert_close(unit, torch.tensor([[0.6, -0.8]]))
    torch.testing.assert_close(norms, torch.tensor([size]))


def test_normalise_of_nothing() -> None:
    x = torch.zeros(1, 3, requires_grad=True)
    unit, norms = normalise(x)
    (grad,) = torch.autograd.grad(unit.sum() + norms.sum(), x)
    assert (unit == 0).all()
    assert norms == 0
    assert torch.isfinite(grad).all()


def test_gradient_of_a_unit_axis_is_projected() -> None:
    """A row along an axis has norm exactly 1 after scaling; a clamp there would drop the gradient."""
    x = torch.tensor([[1.0, 0.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(normalise(x)[0].sum(), x)
    torch.testing.assert_close(grad, torch.tensor([[0.0, 1.0]]))


def test_loss_row_by_row(batch: tuple) -> None:
    x, weight, labels = batch
    margin = margin_of("cosface", s=10.0, m=0.2)
    expected = []
    for row, y in zip(x, labels.tolist(), strict=True):
        if 0 <= y < 6:
            cos = [float(row @ w / row.norm() / w.norm()) for w in weight]
            logits = [10 * (c - 0.2 * (j == y)) for j, c in enumerate(cos)]
            expected.append(math.log(sum(map(math.exp, logits))) - logits[y])
    assert dense_loss(x, weight, labels, margin).item() == pytest.approx(sum(expected) / len(expected))


def test_label_smoothing_and_focal_are_torchs(batch: tuple) -> None:
    x, weight, labels = batch
    margin = margin_of("arcface", s=8.0)
    logits = dense_logits(x, weight, labels, margin)
    targets = torch.where(labels < 6, labels, -1)
    smooth = F.cross_entropy(logits, targets, ignore_index=-1, label_smoothing=0.1)
    torch.testing.assert_close(dense_loss(x, weight, labels, margin, label_smoothing=0.1), smooth)
    ce = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")[targets >= 0]
    expected = ((1 - torch.exp(-ce)) ** 1.5 * ce).mean()
    torch.testing.assert_close(dense_loss(x, weight, labels, margin, focal_gamma=1.5), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_at_no_loss(gamma: float) -> None:
    loss = torch.tensor([0.0, 1e-30, 5.0], requires_grad=True)
    (grad,) = torch.autograd.grad(focal(loss, gamma).sum(), loss)
    assert torch.isfinite(grad).all()


def test_sub_centers_take_the_nearest(batch: tuple) -> None:
    x, weight, _ = batch
    margin = margin_of("normface")
    cos = dense_products(x, weight, margin, sub_centers=2)[0]
    every = F.normalize(x) @ F.normalize(weight).T
    expected = torch.stack([every[:, 2 * c : 2 * c + 2].max(1).values for c in range(3)], 1)
    torch.testing.assert_close(cos, expected)


def test_softmax_with_bias(batch: tuple) -> None:
    x, weight, labels = batch
    bias = torch.arange(6, dtype=torch.float64)
    logits = dense_logits(x, weight, labels, margin_of("softmax", bias=True), bias_C=bias)
    torch.testing.assert_close(logits, F.linear(x, weight, bias))


def test_regulariser_is_in_the_loss(batch: tuple) -> None:
    x, weight, labels = batch
    plain = dense_loss(x, weight, labels, margin_of("magface", lambda_g=0.0))
    margin = margin_of("magface", lambda_g=20.0)
    norms = x[(labels >= 0) & (labels < 6)].norm(dim=1)
    torch.testing.assert_close(dense_loss(x, weight, labels, margin) - plain, margin.regulariser(norms))


def test_binary_loss_row_by_row(batch: tuple) -> None:
    x, weight, labels = batch
    margin = create_margin("uniface", s=4.0, m=0.3, l=0.5, bias=1.0).double()
    expected = []
    for row, y in zip(x, labels.tolist(), strict=True):
        if 0 <= y < 6:
            cos = [float(row @ w / row.norm() / w.norm()) for w in weight]
            positive = math.log1p(math.exp(-(4 * (cos[y] - 0.3) - 1)))
            others = [math.log1p(math.exp(4 * c - 1)) for j, c in enumerate(cos) if j != y]
            expected.append(positive + 0.5 * sum(others))
    assert binary_loss(x, weight, labels, margin).item() == pytest.approx(sum(expected) / len(expected))
    assert binary_logits(x, weight, labels, margin).shape == (7, 6)
