"""Never NaN, never infinite: loss and gradients of every margin at the ends of what an embedding can be."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from marginface.margins import MARGINS, BinaryMargin, Margin, create_margin
from marginface.softmax.binary import binary_loss
from marginface.softmax.dense import dense_loss

D = 6


def build(name: str, num_classes: int, **options: object) -> Margin | BinaryMargin:
    if name in ("adacos", "sphereface2"):
        options["num_classes"] = num_classes
    return create_margin(name, **options)


def loss_of(margin: Margin | BinaryMargin, x: Tensor, weight: Tensor, labels: Tensor, **options: float) -> Tensor:
    if isinstance(margin, BinaryMargin):
        return binary_loss(x, weight, labels, margin)
    return dense_loss(x, weight, labels, margin, **options)


def embedding(kind: str, centre: Tensor) -> Tensor:
    return {
        "zero": torch.zeros_like(centre),
        "tiny": centre * 1e-20,
        "huge": centre * 1e20,
        "centre": centre,
        "opposite": -centre,
        "unit": centre / centre.norm(),
        "axis": torch.eye(D, dtype=centre.dtype)[0],
        "other": centre.flip(0),
    }[kind]


KINDS = ["zero", "tiny", "huge", "centre", "opposite", "unit", "axis", "other"]


@pytest.mark.parametrize("margin_grad", ["true", "straight_through"])
@pytest.mark.parametrize("name", list(MARGINS))
@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=8),
    num_classes=st.integers(1, 5),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    gamma=st.sampled_from([0.0, 0.5, 2.0]),
    zero_weight=st.booleans(),
)
def test_extreme_embeddings(
    name: str,
    margin_grad: str,
    kinds: list[str],
    num_classes: int,
    seed: int,
    dtype: torch.dtype,
    gamma: float,
    zero_weight: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(num_classes, D, generator=generator, dtype=dtype)
    labels = torch.randint(-1, num_classes, (len(kinds),), generator=generator)
    x = torch.stack([embedding(kind, weight[label]) for kind, label in zip(kinds, labels, strict=True)])
    if zero_weight:
        weight[0] = 0
    x.requires_grad_(), weight.requires_grad_()
    margin = build(name, num_classes, margin_grad=margin_grad)
    for _ in range(3):  # the state moves
        loss = loss_of(margin, x, weight, labels, focal_gamma=gamma, label_smoothing=0.1)
        grads = torch.autograd.grad(loss, (x, weight))
        assert torch.isfinite(loss)
        assert all(torch.isfinite(grad).all() for grad in grads), grads
    assert all(torch.isfinite(buffer).all() for buffer in margin.buffers())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(MARGINS))
def test_half_precision(name: str, half: torch.dtype) -> None:
    """Half embeddings and autocast: the margin still computes in float32, and agrees with float32 inputs."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(5, D, generator=generator) * 3).to(half).requires_grad_()
    weight = torch.randn(4, D, generator=generator).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, -1])
    plain = loss_of(build(name, 4), x.detach().float(), weight, labels)
    with torch.autocast("cpu", dtype=half):
        loss = loss_of(build(name, 4), x, weight, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain)
    grads = torch.autograd.grad(loss, (x, weight))
    assert [grad.dtype for grad in grads] == [half, torch.float32]
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(MARGINS))
def test_half_cosines_in_a_plain_loop(name: str, half: torch.dtype) -> None:
    cos = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, 0.0]], dtype=half, requires_grad=True)
    margin, labels = build(name, 3), torch.tensor([0, 0])
    norms = torch.tensor([20.0, 30.0], dtype=half)
    logits = margin(cos, labels) if isinstance(margin, BinaryMargin) else margin(cos, labels, norms)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    (grad,) = torch.autograd.grad(logits.sum(), cos)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", list(MARGINS))
def test_all_rows_ignored(name: str) -> None:
    x, weight = torch.randn(3, D, requires_grad=True), torch.randn(4, D, requires_grad=True)
    margin = build(name, 4)
    before = {key: value.clone() for key, value in margin.state_dict().items() if key not in ("step", "iteration")}
    loss = loss_of(margin, x, weight, torch.tensor([-1, -1, 7]))
    grads = torch.autograd.grad(loss, (x, weight))
    assert loss == 0
    assert all((grad == 0).all() for grad in grads)
    after = margin.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
