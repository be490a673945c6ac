"""Derivatives: finite differences for the true ones, exactly s for the straight-through ones."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from marginface.margins import MARGINS, BinaryMargin, Margin, create_margin
from marginface.margins.base import angle

NUM_CLASSES = 9
CONSTANT_WEIGHTS = {"circle"}  # its α are constants to autograd but not to finite differences
SOFTMAX = [name for name, kind in MARGINS.items() if issubclass(kind, Margin)]
BINARY = [name for name, kind in MARGINS.items() if issubclass(kind, BinaryMargin)]
VARIANTS: list[tuple[str, dict[str, object]]] = [
    *((name, {}) for name in SOFTMAX if name not in CONSTANT_WEIGHTS),
    *((name, {"overflow": o}) for name in ("arcface", "magface") for o in ("clip", "linear", "easy")),
    *((name, {"target": "arc"}) for name in ("sv-softmax", "mv-softmax")),
    ("magface", {"target": "cos"}),
    ("adaface", {"eps": 0.0}),
    ("arcface", {"interclass_filter": 0.3, "cos_clamp": 0.01}),
]


def build(name: str, **options: object) -> Margin | BinaryMargin:
    if name in ("adacos", "sphereface2"):
        options["num_classes"] = NUM_CLASSES
    return create_margin(name, **options).double().eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Cosines on a grid that avoids every switching point, labels, norms of which some are clipped."""
    generator = torch.Generator().manual_seed(4)
    cos = torch.rand(12, NUM_CLASSES, generator=generator, dtype=torch.float64) * 1.9 - 0.95
    norms = torch.linspace(2, 130, 12, dtype=torch.float64)
    return cos.requires_grad_(), torch.arange(12) % NUM_CLASSES, norms.requires_grad_()


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_true_gradient_of_targets(name: str, options: dict[str, object]) -> None:
    margin = build(name, margin_grad="true", **options)
    assert isinstance(margin, Margin)
    cos, labels, norms = batch()
    target = cos.detach().gather(1, labels[:, None]).squeeze(1).requires_grad_()
    if name == "adaface":
        norms = norms.detach()  # read, but a constant by design
    assert gradcheck(lambda c, n: margin.row_scale(n) * margin.target(c, n) + margin.regulariser(n), (target, norms))


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_true_gradient_of_negatives(name: str, options: dict[str, object]) -> None:
    margin = build(name, margin_grad="true", **options)
    assert isinstance(margin, Margin)
    cos, labels, norms = batch()
    target = cos.detach().gather(1, labels[:, None]).squeeze(1)
    bent = margin.target(target, norms.detach())
    assert gradcheck(lambda c: margin.negatives(c, target, bent), (cos,))


IN_PLACE: list[tuple[str, dict[str, object]]] = [
    *VARIANTS,
    ("circle", {}),
    ("sv-softmax", {"interclass_filter": 0.3}),
    *(("arcface", {"cos_clamp": 0.3, "margin_grad": grad}) for grad in ("true", "straight_through")),
]


@pytest.mark.parametrize(("name", "options"), IN_PLACE)
def test_negatives_in_place_are_the_formula_and_its_derivative(name: str, options: dict[str, object]) -> None:
    margin = build(name, **options)
    assert isinstance(margin, Margin)
    if name == "curricularface":
        margin.get_buffer("t").fill_(0.4)
    cos, labels, norms = batch()
    target = cos.detach().gather(1, labels[:, None]).squeeze(1)
    bent = margin.target(target, norms).detach()
    expected = margin.negatives(cos, target, bent)
    spare, slope = torch.full_like(cos, float("nan")), torch.full_like(cos, float("nan"))
    for slope_NK in (None, slope):
        found = cos.detach().clone()
        margin.negatives_(found, target, bent, spare, slope_NK)
        torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), cos)[0])


def test_circle_weights_are_constants() -> None:
    margin = build("circle")
    cos, labels, _ = batch()
    logits = margin(cos, labels)
    expected = (cos.detach() + 0.25).clamp_min(0)
    target = cos.detach().gather(1, labels[:, None])
    expected = 256 * expected.scatter(1, labels[:, None], 1.25 - target)
    torch.testing.assert_close(torch.autograd.grad(logits.sum(), cos)[0], expected)


@pytest.mark.parametrize("name", [name for name in SOFTMAX if name not in {"sphereface", "adacos"}])
def test_straight_through_is_the_scale(name: str) -> None:
    margin = build(name, margin_grad="straight_through")
    assert isinstance(margin, Margin)
    cos, labels, norms = batch()
    target = cos.detach().gather(1, labels[:, None]).squeeze(1).requires_grad_()
    bent = margin.target(target, norms)
    torch.testing.assert_close(torch.autograd.grad(bent.sum(), target)[0], torch.ones_like(target))
    torch.testing.assert_close(bent, build(name, margin_grad="true").target(target, norms))


@pytest.mark.parametrize("name", BINARY)
def test_binary_gradients(name: str) -> None:
    cos, labels, _ = batch()
    true = build(name, margin_grad="true")
    assert isinstance(true, BinaryMargin)
    assert gradcheck(lambda c, b: true.loss(true(c, labels), labels), (cos, true.bias))  # b is the parameter itself
    straight = build(name, margin_grad="straight_through")
    grad = torch.autograd.grad(straight(cos, labels).sum(), cos)[0]
    torch.testing.assert_close(grad, torch.full_like(cos, straight.scale))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angle_is_exact_and_its_derivative_finite(dtype: torch.dtype) -> None:
    cos = torch.tensor([1, -1, 0, 12 / 13, 1 - 1e-6, -1 + 1e-6], dtype=dtype, requires_grad=True)
    theta = angle(cos)
    torch.testing.assert_close(theta, cos.acos())
    (grad,) = torch.autograd.grad(theta.sum(), cos)
    assert torch.isfinite(grad).all()
    exact = (1 - cos.detach()[2:].double() ** 2).rsqrt()
    torch.testing.assert_close(grad[2:], -exact.to(dtype))
    beyond = angle(torch.tensor([1 + 1e-6, -1 - 1e-6], dtype=dtype))
    torch.testing.assert_close(beyond, torch.tensor([0, math.pi], dtype=dtype))


@pytest.mark.parametrize("name", BINARY)
def test_binary_negatives_in_place(name: str) -> None:
    margin = build(name, margin_grad="true")
    assert isinstance(margin, BinaryMargin)
    cos = batch()[0].detach()
    offset = torch.linspace(-0.5, 0.5, len(cos), dtype=cos.dtype)[:, None]
    found = margin.negatives_(cos - offset, offset, unit=0.7)
    torch.testing.assert_close(found, 0.7 * margin.negative(cos).detach())
    if margin.linear:
        moved = margin.bend_negative(cos) - cos
        torch.testing.assert_close(moved, moved[0, 0].expand_as(cos))
