"""The loss of every recipe, guide and translated option has the gradient of the repository it stands for.

The references are derived again here from the formulas of those repositories, dense and in float64, differentiated by
autograd where theirs is, and without a gradient of the margin where theirs has none. The batch holds cosines beyond
every threshold at which an implementation clamps, clips or continues its margin.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from marginface.margins import create_margin, list_margins
from marginface.softmax import MarginSoftmax
from marginface.training.config import recipe_rows
from marginface.training.openvino_options import translated

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
NEAR_ONE = [1 - 3e-4, 1 - 3e-5, 1 - 3e-7]  # between the clamps 1e-3, 1e-4, 1e-6 and 0
COSINES = torch.tensor([*torch.linspace(-0.99, 0.99, 24).tolist(), *NEAR_ONE, *(-cos for cos in NEAR_ONE)]).double()
ROWS, FEATURES, CLASSES = len(COSINES), 16, 40
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Embeddings, class weights, labels -> loss."""


def cosines(x: Tensor, w: Tensor, clamp: float = 0.0) -> Tensor:
    return (F.normalize(x) @ F.normalize(w).T).clamp(clamp - 1, 1 - clamp)


def with_target(cos: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    return torch.where(F.one_hot(labels, CLASSES).bool(), target, cos)


def arc(m: float, clamp: float = 0.0) -> Loss:
    """cos(θ + m), differentiated: ElasticFace, InsightFace of 2021, and femb, which clamps."""
    return lambda x, w, y: F.cross_entropy(64 * with_target(c := cosines(x, w, clamp), y, (c.acos() + m).cos()), y)


def arc_adaface(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """AdaFace's ArcFace: θ + m clipped to [1e-4, π − 1e-4]."""
    cos = cosines(x, w, 1e-4)
    bent = (cos.acos() + 0.5).clamp(1e-4, math.pi - 1e-4).cos()
    return F.cross_entropy(64 * with_target(cos, y, bent), y)


def cosine(m: float, clamp: float = 0.0) -> Loss:
    return lambda x, w, y: F.cross_entropy(64 * with_target(c := cosines(x, w, clamp), y, c - m), y)


def elastic(kind: str, m: float, std: float, s: float = 64.0, released: bool = False) -> Loss:
    """A margin drawn for every row. "+" as released sorts the margins, and reads them in the order of the cosines."""

    def loss(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        draws = create_margin(f"elasticface-{kind}", m=m, std=std)
        draws.update(torch.empty(0), torch.empty(0))  # the first step
        drawn = draws.sample(ROWS)  # type: ignore[operator]
        cos = cosines(x, w)
        if released:
            drawn = drawn.sort().values[cos.gather(1, y[:, None]).squeeze(1).argsort(descending=True)]
        bent = (cos.acos() + drawn[:, None]).cos() if kind == "arc" else cos - drawn[:, None]
        return F.cross_entropy(s * with_target(cos, y, bent), y)

    return loss


def insightface(m2: float, m3: float, interclass: float = 0.0) -> Loss:
    """Today's: the margin is applied to the target without a gradient of its own."""

    def loss(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        cos = cosines(x, w)
        if interclass:
            cos = torch.where((cos > interclass) & ~F.one_hot(y, CLASSES).bool(), 0.0, cos)
        bent = (cos.detach().acos() + m2).cos() - m3
        return F.cross_entropy(64 * with_target(cos, y, cos + (bent - cos).detach()), y)

    return loss


def openvino(kind: str, mining: str, m: float = 0.35, t: float = 1.1, gamma: float = 2.0, s: float = 30) -> Loss:
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


def adaface(m: float = 0.4, h: float = 0.333, s: float = 64.0, t_alpha: float = 0.01) -> Loss:
    """First step: the running statistics start at 20 and 100 and move by t_alpha before use."""

    def loss(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        norms = x.detach().norm(dim=1, keepdim=True).clamp(1e-3, 100)
        mean, std = (1 - t_alpha) * 20 + t_alpha * norms.mean(), (1 - t_alpha) * 100 + t_alpha * norms.std()
        scaled = (h * (norms - mean) / (std + 1e-3)).clamp(-1, 1)
        cos = cosines(x, w, 1e-3)
        bent = (cos.acos() - m * scaled).clamp(1e-3, math.pi - 1e-3).cos() - m * (1 + scaled)
        return F.cross_entropy(s * with_target(cos, y, bent), y)

    return loss


def magface(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """femb's, with the regulariser in the loss, where it acts."""
    a = x.norm(dim=1, keepdim=True).clamp(10, 110)
    m = (0.8 - 0.45) / (110 - 10) * (a - 10) + 0.45
    cos = cosines(x, w, 1e-6)
    return F.cross_entropy(64 * with_target(cos, y, (cos.acos() + m).cos()), y) + 20 * (a / 110**2 + 1 / a).mean()


def linear(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(x @ w.T, y)


FEMB = 1e-6  # to which femb clamps
OF_RECIPES: dict[str, Loss] = {  # by the beginning of the name, the first that fits
    "adaface-": adaface(),
    "arcface-mbf-ms1mv3": insightface(0.5, 0),
    "arcface-r50-ms1mv2": insightface(0.5, 0),
    "arcface-r100-ms1mv2": insightface(0.5, 0),
    "arcface-": arc(0.5),  # the version of 2021, of which XAIface's tables are
    "cosface-r50-webface12m-flip40": insightface(0, 0.4, interclass=0.4),
    "cosface-": insightface(0, 0.4),
    "elasticface-arc-plus": elastic("arc", 0.5, 0.0175, released=True),
    "elasticface-cos-plus": elastic("cos", 0.35, 0.02, released=True),
    "elasticface-arc": elastic("arc", 0.5, 0.05),
    "elasticface-cos": elastic("cos", 0.35, 0.05),
    "femb-arcface": arc(0.5, clamp=FEMB),
    "femb-cosface": cosine(0.35, clamp=FEMB),
    "femb-elasticface": elastic("arc", 0.5, 0.0125),
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
# guide -> words of ours in it -> the loss they stand for; None: the guide says that it is another on purpose
ARC_FEMB = "--margin.name arcface --margin.options.margin_grad true --margin.options.cos_clamp 0.000001"
OF_GUIDES: dict[str, dict[str, Loss | None]] = {
    "adaface": {
        "--margin.name adaface": adaface(),
        "--margin.name arcface --margin.options.overflow clip --margin.options.margin_grad true "
        "--margin.options.cos_clamp 0.0001": arc_adaface,
        "--margin.name cosface --margin.options.m 0.5 --margin.options.cos_clamp 0.0001": cosine(0.5, clamp=1e-4),
    },
    "elasticface": {
        "--margin.name elasticface-arc": elastic("arc", 0.5, 0.05),
        "elasticface-cos": elastic("cos", 0.35, 0.05),
        "elasticface-arc-plus --margin.options.plus_mode released": elastic("arc", 0.5, 0.0175, released=True),
        "elasticface-cos-plus --margin.options.plus_mode released": elastic("cos", 0.35, 0.02, released=True),
        "arcface --margin.options.margin_grad true": arc(0.5),
        "cosface": cosine(0.35),
        "--margin.options.plus_mode paper": None,
    },
    "femb": {
        ARC_FEMB: arc(0.5, clamp=FEMB),
        "--margin.name arcface --margin.options.margin_grad true": arc(0.5),
        "--margin.name cosface --margin.options.cos_clamp 0.000001": cosine(0.35, clamp=FEMB),
        "--margin.name elasticface-arc --margin.options.std 0.0125": elastic("arc", 0.5, 0.0125),
        "--margin.name sphereface": None,
        "--margin.name magface --margin.options.lambda_g 20 --margin.options.overflow none "
        "--margin.options.cos_clamp 0.000001": magface,
        "--margin.name softmax": linear,
    },
    "insightface": {
        "--margin.name arcface": insightface(0.5, 0),
        "--margin.name cosface --margin.options.m 0.4": insightface(0, 0.4),
        "--margin.name arcface --margin.options.margin_grad true": arc(0.5),
        "--margin.name cosface --margin.options.m 0.4 --margin.options.interclass_filter 0.4": insightface(0, 0.4, 0.4),
        "combined": None,
    },
    "openvino": {
        "--margin.name sv-softmax": openvino("cos", "sv"),
        "--margin.name sv-softmax --margin.options.target arc --margin.options.m 0.35": openvino("arc", "sv"),
        "--margin.name cosface --margin.options.s 30 --softmax.focal_gamma 2": openvino("cos", "focal"),
        "--margin.name arcface --margin.options.s 30 --margin.options.m 0.35 --margin.options.overflow linear "
        "--margin.options.margin_grad true --softmax.focal_gamma 2": openvino("arc", "focal"),
    },
}
RENAMED: list[tuple[str, str, dict[str, float], Loss]] = [  # guide, margin, its parameters as the guide names them
    ("adaface", "adaface", {"m": 0.5, "h": 0.2, "s": 32.0, "t_alpha": 0.9}, adaface(0.5, 0.2, 32.0, 0.9)),
    ("elasticface", "elasticface-arc", {"s": 32.0, "m": 0.3, "std": 0.1}, elastic("arc", 0.3, 0.1, s=32.0)),
    ("openvino", "sv-softmax", {"m": 0.2, "s": 40.0, "t": 1.3}, openvino("cos", "sv", 0.2, 1.3, s=40.0)),
]


def gradients(loss: Loss, norm: float) -> tuple[Tensor, Tensor]:
    """Of embeddings and class weights, on one batch."""
    generator = torch.Generator().manual_seed(5)
    w = torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)
    w[1::2] = w[::2] + 0.3 * w[1::2]  # so that every class has a rival, and no softmax is certain of itself
    y = torch.randint(CLASSES, (ROWS,), generator=generator)
    noise = torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    own = F.normalize(w)[y]
    across = F.normalize(noise - (noise * own).sum(1, keepdim=True) * own)
    cos = COSINES[torch.randperm(ROWS, generator=generator)][:, None]
    lengths = torch.linspace(0.5, 1.5, ROWS, dtype=torch.float64)[:, None] * norm
    x = (lengths * (cos * own + (1 - cos**2).sqrt() * across)).requires_grad_()
    w.requires_grad_()
    dx, dw = torch.autograd.grad(loss(x, w, y), (x, w))
    return dx, dw


def ours(name: str, options: dict[str, Any], focal_gamma: float = 0.0) -> Loss:
    def loss(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        head = MarginSoftmax(FEATURES, CLASSES, create_margin(name, **options), focal_gamma=focal_gamma, engine="dense")
        head.double()
        del head.weight
        head.weight = w  # type: ignore[assignment]
        return head(x, y)

    return loss


def from_words(words: str) -> Loss:
    """Of options as a guide writes them; `--margin.name` may be left out before the name."""
    name, *rest = words.removeprefix("--margin.name ").split()
    given = {key: yaml.safe_load(value) for key, value in zip(rest[::2], rest[1::2], strict=True)}
    gamma = given.pop("--softmax.focal_gamma", 0.0)
    return ours(name, {key.removeprefix("--margin.options."): value for key, value in given.items()}, gamma)


def check(loss: Loss, reference: Loss) -> None:
    for norm in (1.0, 30.0):
        for actual, expected in zip(gradients(loss, norm), gradients(reference, norm), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


def text_of(guide: str) -> str:
    return (GUIDES / f"coming-from-{guide}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(dict(recipe_rows()).keys() - ON_PURPOSE.keys()))
def test_recipes(name: str) -> None:
    recipe = dict(recipe_rows())[name]
    reference = next(loss for start, loss in OF_RECIPES.items() if name.startswith(start))
    gamma = recipe.get("softmax", {}).get("focal_gamma", 0.0)
    check(ours(recipe["margin"]["name"], recipe["margin"].get("options", {}), gamma), reference)


@pytest.mark.parametrize(("guide", "words"), [(guide, words) for guide, known in OF_GUIDES.items() for words in known])
def test_words_of_guides(guide: str, words: str) -> None:
    assert f"`{words}`" in text_of(guide)
    if reference := OF_GUIDES[guide][words]:
        check(from_words(words), reference)


@pytest.mark.parametrize(("guide", "name", "parameters", "reference"), RENAMED, ids=[row[0] for row in RENAMED])
def test_renamed_parameters(guide: str, name: str, parameters: dict[str, float], reference: Loss) -> None:
    first, *others = parameters
    assert ", ".join([f"`--margin.options.{first}`", *(f"`.{other}`" for other in others)]) in text_of(guide)
    check(ours(name, parameters), reference)


@pytest.mark.parametrize("guide", sorted(path.stem.removeprefix("coming-from-") for path in GUIDES.glob("*.md")))
def test_no_words_of_a_guide_are_left_out(guide: str) -> None:
    """Every code span that names a margin or sets an option of the loss to a value is in the table above."""
    margins = "|".join(sorted(list_margins(), key=len, reverse=True))
    loss = re.compile(rf"(--margin\.name )?({margins})( --.*)?|--(margin\.options|softmax\.focal_gamma)\S* \S.*")
    spans = {span for span in re.findall(r"`([^`\n]+)`", text_of(guide)) if loss.fullmatch(span)}
    assert spans <= OF_GUIDES[guide].keys()


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
