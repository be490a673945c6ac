"""The loss of every recipe, guide and translated option has the gradient of the repository it stands for.

The references are derived again here from the formulas of those repositories, dense and in float64, differentiated by
autograd where theirs is, and without a gradient of the margin where theirs has none.
"""

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from marginface.margins import create_margin
from marginface.softmax import MarginSoftmax
from marginface.training.config import recipe_rows
from marginface.training.openvino_options import translated

ROOT = Path(__file__).parents[2]
ROWS, FEATURES, CLASSES = 24, 16, 40
Reference = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Embeddings, class weights, labels -> loss."""


def cosines(x: Tensor, w: Tensor) -> Tensor:
    return F.normalize(x) @ F.normalize(w).T


def with_target(cos: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    return torch.where(F.one_hot(labels, CLASSES).bool(), target, cos)


def arc(m: float, s: float = 64.0) -> Reference:
    """ElasticFace's and femb's ArcFace: cos(θ + m), differentiated."""
    return lambda x, w, y: F.cross_entropy(s * with_target(c := cosines(x, w), y, (c.acos() + m).cos()), y)


def arc_clipped(m: float) -> Reference:
    """AdaFace's ArcFace: θ + m clipped to [1e-4, π − 1e-4]."""

    def loss(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        cos = cosines(x, w)
        return F.cross_entropy(64 * with_target(cos, y, (cos.acos() + m).clamp(1e-4, math.pi - 1e-4).cos()), y)

    return loss


def cosine(m: float, s: float = 64.0) -> Reference:
    return lambda x, w, y: F.cross_entropy(s * with_target(c := cosines(x, w), y, c - m), y)


def insightface(m2: float, m3: float, interclass: float = 0.0) -> Reference:
    """The margin is applied to the target without a gradient of its own."""

    def loss(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        cos = cosines(x, w)
        if interclass:
            cos = torch.where((cos > interclass) & ~F.one_hot(y, CLASSES).bool(), 0.0, cos)
        bent = (cos.detach().acos() + m2).cos() - m3
        return F.cross_entropy(64 * with_target(cos, y, cos + (bent - cos).detach()), y)

    return loss


def openvino(kind: str, mining: str, m: float = 0.35, t: float = 1.1, gamma: float = 2.0, s: float = 30) -> Reference:
    """Its arc margin continues as cos θ − m·sin m beyond θ = π − m; focal weights are differentiated."""

    def loss(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        cos = cosines(x, w)
        bent = cos - m
        if kind == "arc":
            bent = torch.where(cos > math.cos(math.pi - m), (cos.acos() + m).cos(), cos - m * math.sin(m))
        logits = with_target(cos, y, bent)
        if mining == "sv":
            hard = cos > bent.gather(1, y[:, None])
            logits = torch.where(hard & ~F.one_hot(y, CLASSES).bool(), t * cos + t - 1, logits)
            return F.cross_entropy(s * logits, y)
        entropy = F.cross_entropy(s * logits, y, reduction="none")
        return ((1 - (-entropy).exp()) ** gamma * entropy).mean()

    return loss


def adaface(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """First step: the running statistics start at 20 and 100 and move by 0.01 before use."""
    norms = x.detach().norm(dim=1, keepdim=True).clamp(1e-3, 100)
    mean, std = 0.99 * 20 + 0.01 * norms.mean(), 0.99 * 100 + 0.01 * norms.std()
    scaled = (0.333 * (norms - mean) / (std + 1e-3)).clamp(-1, 1)
    cos = cosines(x, w).clamp(-1 + 1e-3, 1 - 1e-3)
    bent = (cos.acos() - 0.4 * scaled).clamp(1e-3, math.pi - 1e-3).cos() - 0.4 * (1 + scaled)
    return F.cross_entropy(64 * with_target(cos, y, bent), y)


def magface(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """femb's, with the regulariser in the loss, where it acts."""
    a = x.norm(dim=1, keepdim=True).clamp(10, 110)
    m = (0.8 - 0.45) / (110 - 10) * (a - 10) + 0.45
    cos = cosines(x, w)
    return F.cross_entropy(64 * with_target(cos, y, (cos.acos() + m).cos()), y) + 20 * (a / 110**2 + 1 / a).mean()


def linear(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(x @ w.T, y)


STILL = {"std": 0.0}  # ElasticFace's random margins at their mean
OF_RECIPES: dict[str, Reference] = {
    "adaface-": adaface,
    "arcface-": insightface(0.5, 0),
    "cosface-r50-webface12m-flip40": insightface(0, 0.4, interclass=0.4),
    "cosface-": insightface(0, 0.4),
    "elasticface-arc": arc(0.5),
    "elasticface-cos": cosine(0.35),
    "femb-arcface": arc(0.5),
    "femb-cosface": cosine(0.35),
    "femb-elasticface": arc(0.5),
    "femb-linear": linear,
    "femb-magface": magface,
    **{f"openvino-mobilefacenet-{k}-{m}": openvino(k, m) for k in ("cos", "arc") for m in ("sv", "focal")},
}
ON_PURPOSE = {  # and why
    "femb-sphereface-casia": "theirs, cos(4θ), is not monotone",
    "finetune": "ours",
    "lfw-scratch": "ours",
    "quickstart": "ours",
}
OF_GUIDES: list[tuple[str, str, Reference]] = [
    ("elasticface", "arcface --margin.options.margin_grad true", arc(0.5)),
    ("elasticface", "cosface", cosine(0.35)),
    ("adaface", "arcface --margin.options.overflow clip --margin.options.margin_grad true", arc_clipped(0.5)),
    ("adaface", "cosface", cosine(0.35)),
    ("femb", "arcface --margin.options.margin_grad true", arc(0.5)),
    ("femb", "magface --margin.options.lambda_g 20 --margin.options.overflow none", magface),
    (
        "openvino",
        "arcface --margin.options.overflow linear --margin.options.margin_grad true",
        openvino("arc", "focal", 0.5, s=64),
    ),
]


def gradients(loss: Callable[[Tensor, Tensor, Tensor], Tensor], norm: float) -> tuple[Tensor, Tensor]:
    """Of a batch that has rows beyond every threshold: cosines from -0.99 to 0.99."""
    generator = torch.Generator().manual_seed(5)
    w = torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (ROWS,), generator=generator)
    noise = torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    own = F.normalize(w)[y]
    across = F.normalize(noise - (noise * own).sum(1, keepdim=True) * own)
    cos = torch.linspace(-0.99, 0.99, ROWS, dtype=torch.float64)[:, None]
    lengths = torch.linspace(0.5, 1.5, ROWS, dtype=torch.float64)[:, None] * norm
    x = (lengths * (cos * own + (1 - cos**2).sqrt() * across)).requires_grad_()
    w.requires_grad_()
    dx, dw = torch.autograd.grad(loss(x, w, y), (x, w))
    return dx, dw


def ours(name: str, options: dict[str, Any], focal_gamma: float = 0.0) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    still = STILL if name.startswith("elasticface") else {}

    def loss(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        margin = create_margin(name, **options | still)
        head = MarginSoftmax(FEATURES, CLASSES, margin, focal_gamma=focal_gamma, engine="dense").double()
        del head.weight
        head.weight = w  # type: ignore[assignment]
        return head(x, y)

    return loss


def check(loss: Callable[[Tensor, Tensor, Tensor], Tensor], reference: Reference) -> None:
    for norm in (1.0, 30.0):
        for actual, expected in zip(gradients(loss, norm), gradients(reference, norm), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("name", sorted(dict(recipe_rows())))
def test_recipes(name: str) -> None:
    if name in ON_PURPOSE:
        return
    recipe = dict(recipe_rows())[name]
    reference = next(loss for start, loss in OF_RECIPES.items() if name.startswith(start))
    softmax = recipe.get("softmax", {})
    check(
        ours(recipe["margin"]["name"], recipe["margin"].get("options", {}), softmax.get("focal_gamma", 0.0)), reference
    )


@pytest.mark.parametrize(("guide", "words", "reference"), OF_GUIDES)
def test_guides(guide: str, words: str, reference: Reference) -> None:
    text = (ROOT / "docs" / "guides" / f"coming-from-{guide}.md").read_text()
    assert f"`--margin.name {words}`" in text or f"`{words}`" in text
    name, *rest = shlex.split(words)
    options = {key.rpartition(".")[2]: yaml.safe_load(value) for key, value in zip(rest[::2], rest[1::2], strict=True)}
    check(ours(name, options, focal_gamma=2.0 if guide == "openvino" else 0.0), reference)


@pytest.mark.parametrize("kind", ["cos", "arc"])
@pytest.mark.parametrize("mining", ["sv", "focal"])
def test_openvino_options(kind: str, mining: str) -> None:
    words, _ = translated(f"--margin_type {kind} --mining_type {mining} --m 0.4 --t 1.3 --gamma 1.5".split())
    given = dict(word[2:].split("=", 1) for word in words)
    options = yaml.safe_load(given["margin.options"])
    check(
        ours(given["margin.name"], options, float(given["softmax.focal_gamma"])),
        openvino(kind, mining, 0.4, 1.3, 1.5),
    )
