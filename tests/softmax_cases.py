"""Small training problems for the tests of `softmax/`: every margin, batches with ignored rows, and comparisons."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marginface.margins import BinaryMargin, create_margin, list_margins
from marginface.softmax import MarginSoftmax

NEEDS_CLASSES = ("adacos", "sphereface2")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sub_centers": {"sub_centers": 3},
    "smoothing": {"label_smoothing": 0.1},
    "focal": {"focal_gamma": 2.0},
    "filter": {"margin_options": {"interclass_filter": 0.2}},
    "clamp": {"margin_options": {"cos_clamp": 1e-3}},
    "true": {"margin_options": {"margin_grad": "true"}},
    "straight_through": {"margin_options": {"margin_grad": "straight_through"}},
}


def margin_for(name: str, num_classes: int, **options: Any) -> Any:
    """A margin by name; bias where softmax offers it."""
    if name in NEEDS_CLASSES:
        options["num_classes"] = num_classes
    if name == "softmax":
        options["bias"] = True
    return create_margin(name, **options)


def insightface_margin(hyper: dict[str, Any]) -> Any:
    """CombinedMarginLoss: a CosFace as soon as m3 > 0, else straight-through."""
    options = {"s": hyper["s"], "interclass_filter": hyper.get("interclass_filtering_threshold", 0.0)}
    if hyper["m3"] > 0:
        return create_margin("cosface", m=hyper["m3"], **options)
    return create_margin("combined", m1=hyper["m1"], m2=hyper["m2"], m3=0.0, **options)


def own_labels(labels: Tensor, num_classes: int) -> Tensor:
    """−1 for labels beyond the classes, which references ignore and we refuse."""
    return torch.where(labels < num_classes, labels, -1)


def is_binary(name: str) -> bool:
    return isinstance(margin_for(name, 10), BinaryMargin)


SOFTMAX_MARGINS = [name for name in list_margins() if not is_binary(name)]
BINARY_MARGINS = [name for name in list_margins() if is_binary(name)]


@dataclass
class Batch:
    """Embeddings (N, D) in float64 and labels (N,), some −1; half of the rows lie near their class."""

    x_ND: Tensor
    labels_N: Tensor
    weight_CD: Tensor


def batch(
    num_rows: int = 24, num_features: int = 16, num_classes: int = 37, sub_centers: int = 1, seed: int = 0
) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    weight_CD = torch.randn(num_classes * sub_centers, num_features, generator=generator, dtype=torch.float64)
    x_ND = 8 * torch.randn(num_rows, num_features, generator=generator, dtype=torch.float64)
    labels_N = torch.randint(0, num_classes, (num_rows,), generator=generator)
    half = num_rows // 2
    x_ND[:half] = 0.3 * x_ND[:half] + 4 * weight_CD[labels_N[:half] * sub_centers]
    labels_N[3::11] = -1
    return Batch(x_ND, labels_N, weight_CD)


def head_for(
    name: str, weight_CD: Tensor, margin_options: dict[str, Any] | None = None, **options: Any
) -> MarginSoftmax:
    """A head with these weights, in their dtype."""
    num_classes = len(weight_CD) // options.get("sub_centers", 1)
    margin = margin_for(name, num_classes, **margin_options or {})
    head = MarginSoftmax(weight_CD.shape[1], num_classes, margin, **options).to(weight_CD.dtype)
    with torch.no_grad():
        head.weight.copy_(weight_CD)
    return head


def train_steps(head: MarginSoftmax, x_ND: Tensor, labels_N: Tensor, steps: int = 2) -> dict[str, Tensor]:
    """Loss, all gradients and all buffers of each of some steps with constant weights, in float64."""
    found = {}
    for step in range(steps):
        head.zero_grad()
        x_ND = x_ND.detach().clone().requires_grad_()
        loss = head(x_ND, labels_N)
        loss.backward()
        found[f"loss{step}"], found[f"x{step}"] = loss.detach(), x_ND.grad
        found |= {f"{name}{step}": p.grad for name, p in head.named_parameters() if p.grad is not None}
        found |= {f"{name}{step}": b.clone() for name, b in head.margin.named_buffers()}
    return {name: value.double() for name, value in found.items()}


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative deviation of any of the tensors, each measured as a whole."""
    assert found.keys() == expected.keys()
    return max(deviation(found[name], expected[name]) for name in found)


def deviation(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖; infinite where anything is not finite."""
    if not (found.isfinite().all() and expected.isfinite().all()):
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))
