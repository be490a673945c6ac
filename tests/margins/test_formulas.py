"""Every margin against its formula written out for one row at a time, in plain Python."""

import math
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from marginface.margins import MARGINS, BinaryMargin, Margin, create_margin
from marginface.margins.elasticface import ElasticFace

Row = tuple[list[float], int, float]  # cosines, label, norm
Logits = list[float]


def with_target(s: float, cos: list[float], y: int, target: float) -> Logits:
    return [s * (target if j == y else c) for j, c in enumerate(cos)]


def arc(c: float, m: float, overflow: str = "none", eps: float = 1e-4) -> float:
    theta = math.acos(c)
    if overflow == "clip":
        return math.cos(min(max(theta + m, eps), math.pi - eps))
    if overflow == "linear" and theta + m >= math.pi:
        return c - m * math.sin(math.pi - m)
    if overflow == "easy" and c <= 0:
        return c
    return math.cos(theta + m)


def normface(cos: list[float], y: int, norm: float) -> Logits:
    return [30 * c for c in cos]


def cosface(cos: list[float], y: int, norm: float) -> Logits:
    return with_target(64, cos, y, cos[y] - 0.35)


def arcface(overflow: str) -> Callable[[list[float], int, float], Logits]:
    return lambda cos, y, norm: with_target(64, cos, y, arc(cos[y], 0.5, overflow))


def psi(c: float, m: float) -> float:
    k = math.floor(m * math.acos(c) / math.pi)
    return (-1) ** k * math.cos(m * math.acos(c)) - 2 * k


def sphereface(cos: list[float], y: int, norm: float) -> Logits:
    weight = max(5, 1000 / (1 + 0.12 * 1))
    return with_target(norm, cos, y, (weight * cos[y] + psi(cos[y], 4)) / (1 + weight))


def sphereface_r(cos: list[float], y: int, norm: float) -> Logits:
    return with_target(30, cos, y, psi(cos[y], 1.7))


def combined(cos: list[float], y: int, norm: float) -> Logits:
    return with_target(64, cos, y, math.cos(0.9 * math.acos(cos[y]) + 0.4) - 0.15)


def magface(overflow: str, target: str) -> Callable[[list[float], int, float], Logits]:
    def logits(cos: list[float], y: int, norm: float) -> Logits:
        m = 0.45 + (0.8 - 0.45) * (min(max(norm, 10), 110) - 10) / 100
        return with_target(64, cos, y, cos[y] - m if target == "cos" else arc(cos[y], m, overflow))

    return logits


def adaface(cos: list[float], y: int, norm: float) -> Logits:
    norm = min(max(norm, 1e-3), 100)  # a batch of one row: the mean moves, the spread does not
    z = 0.333 * (norm - (0.99 * 20 + 0.01 * norm)) / (100 + 1e-3)
    z = min(max(z, -1), 1)
    theta = math.acos(min(max(cos[y], -0.999), 0.999)) - 0.4 * z
    return with_target(64, cos, y, math.cos(min(max(theta, 1e-3), math.pi - 1e-3)) - (0.4 + 0.4 * z))


def curricularface(cos: list[float], y: int, norm: float) -> Logits:
    t, hard = 0.01 * cos[y], arc(cos[y], 0.5)
    bent = [c * (t + c) if c > hard else c for c in cos]
    return with_target(64, bent, y, arc(cos[y], 0.5, "linear"))


def sv_softmax(target: str) -> Callable[[list[float], int, float], Logits]:
    def logits(cos: list[float], y: int, norm: float) -> Logits:
        phi = cos[y] - 0.35 if target == "am" else arc(cos[y], 0.5, "linear")
        return with_target(30, [1.1 * c + 1.1 - 1 if c > phi else c for c in cos], y, phi)

    return logits


def mv_softmax(target: str) -> Callable[[list[float], int, float], Logits]:
    def logits(cos: list[float], y: int, norm: float) -> Logits:
        full = cos[y] - 0.35 if target == "am" else arc(cos[y], 0.35)
        phi = full if cos[y] > (0.35 if target == "am" else 0) else cos[y]
        return with_target(32, [1.12 * (c + 1) - 1 if c > full else c for c in cos], y, phi)

    return logits


def arcnegface(cos: list[float], y: int, norm: float) -> Logits:
    a = arc(cos[y], 0.5, "linear")
    return with_target(64, [1.2 * math.exp(-((c - a) ** 2) / 2) * (c + 1) - 1 for c in cos], y, a)


def circle(cos: list[float], y: int, norm: float) -> Logits:
    target = max(1 + 0.25 - cos[y], 0) * (cos[y] - (1 - 0.25))
    return with_target(256, [max(c + 0.25, 0) * (c - 0.25) for c in cos], y, target)


def adacos(cos: list[float], y: int, norm: float) -> Logits:
    s = max(1.0, math.log(max(len(cos) - 1, 2)) / math.cos(min(math.pi / 4, math.acos(cos[y]))))
    return [s * c for c in cos]


def filtered(cos: list[float], y: int, norm: float) -> Logits:
    return with_target(64, [0.0 if c > 0.2 else c for c in cos], y, cos[y] - 0.35)


def half_strength(cos: list[float], y: int, norm: float) -> Logits:
    return with_target(64, cos, y, cos[y] - 0.5 * 0.35)


def filtered_uniface(cos: list[float], y: int, norm: float) -> Logits:
    return uniface([c if j == y or c <= 0.2 else 0.0 for j, c in enumerate(cos)], y, norm)


def sphereface2(cos: list[float], y: int, norm: float) -> Logits:
    g = [2 * ((c + 1) / 2) ** 3 - 1 for c in cos]
    b = create_margin("sphereface2", num_classes=len(cos)).get_parameter("bias").item()
    return [40 * (v - 0.4 if j == y else v + 0.4) + b for j, v in enumerate(g)]


def uniface(cos: list[float], y: int, norm: float) -> Logits:
    return [64 * (c - 0.4 if j == y else c) - 15 for j, c in enumerate(cos)]


FORMULAS: list[tuple[str, dict[str, object], Callable[[list[float], int, float], Logits]]] = [
    ("normface", {}, normface),
    ("cosface", {}, cosface),
    *(("arcface", {"overflow": overflow}, arcface(overflow)) for overflow in ("none", "clip", "linear", "easy")),
    ("sphereface", {}, sphereface),
    ("sphereface-r", {}, sphereface_r),
    ("combined", {"m1": 0.9, "m2": 0.4, "m3": 0.15}, combined),
    *(("magface", {"overflow": o}, magface(o, "arc")) for o in ("none", "clip", "linear", "easy")),
    ("magface", {"target": "cos"}, magface("easy", "cos")),
    ("adaface", {}, adaface),
    ("curricularface", {}, curricularface),
    *(("sv-softmax", {"target": target}, sv_softmax(target)) for target in ("am", "arc")),
    *(("mv-softmax", {"target": target}, mv_softmax(target)) for target in ("am", "arc")),
    ("arcnegface", {}, arcnegface),
    ("circle", {}, circle),
    ("adacos", {}, adacos),
    ("cosface", {"interclass_filter": 0.2}, filtered),
    ("cosface", {"strength": 0.5}, half_strength),
    ("sphereface2", {}, sphereface2),
    ("uniface", {}, uniface),
    ("uniface", {"interclass_filter": 0.2}, filtered_uniface),
]
SEEN_ELSEWHERE = {"softmax", *(name for name in MARGINS if name.startswith("elasticface"))}


def test_every_margin_has_its_formula() -> None:
    assert {name for name, _, _ in FORMULAS} | SEEN_ELSEWHERE == set(MARGINS)


cosine = st.floats(-0.9999, 0.9999)
rows = st.lists(cosine, min_size=1, max_size=7).flatmap(
    lambda cos: st.tuples(st.just(cos), st.integers(0, len(cos) - 1), st.floats(0.5, 200))
)


@pytest.mark.parametrize("case", FORMULAS, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
@settings(max_examples=40, deadline=None)
@given(row=rows)
def test_formula(case: tuple, row: Row) -> None:
    name, options, formula = case
    cos, y, norm = row
    options = dict(options)
    strength = options.pop("strength", 1.0)
    if name in ("adacos", "sphereface2"):
        options["num_classes"] = len(cos)
    margin = create_margin(name, **options).double()
    inputs = torch.tensor([cos], dtype=torch.float64), torch.tensor([y])
    if isinstance(margin, BinaryMargin):
        ours = margin(*inputs)
    else:
        margin.strength = strength
        ours = margin(*inputs, torch.tensor([norm], dtype=torch.float64))
    theirs = torch.tensor([formula(cos, y, norm)], dtype=torch.float64)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_softmax_leaves_the_products_alone(bias: bool) -> None:
    margin = create_margin("softmax", bias=bias)
    products = torch.randn(3, 4) * 50
    assert isinstance(margin, Margin)
    assert (margin.bias, margin.normalised) == (bias, False)
    torch.testing.assert_close(margin(products, torch.tensor([0, 3, -1])), products)


@pytest.mark.parametrize("name", [name for name in MARGINS if name.startswith("elasticface")])
@pytest.mark.parametrize("plus_mode", ["paper", "released"])
def test_elasticface_with_its_own_margins(name: str, plus_mode: str) -> None:
    margin = create_margin(name, **({"plus_mode": plus_mode} if name.endswith("plus") else {})).double()
    assert isinstance(margin, ElasticFace)
    cos = torch.rand(6, 4, dtype=torch.float64) * 1.8 - 0.9
    labels = torch.tensor([0, 1, -1, 3, 2, 2])
    logits = margin(cos, labels)
    valid = [i for i in range(6) if labels[i] >= 0]
    drawn = margin.sample(len(valid)).tolist()
    if name.endswith("plus"):
        order = sorted(range(len(valid)), key=lambda i: -cos[valid[i], labels[valid[i]]].item())
        ranks = [order.index(i) for i in range(len(valid))] if plus_mode == "paper" else order
        drawn = [sorted(drawn)[rank] for rank in ranks]
    expected = 64 * cos
    for i, m in zip(valid, drawn, strict=True):
        c = cos[i, labels[i]].item()
        expected[i, labels[i]] = 64 * (arc(c, m) if "arc" in name else c - m)
    torch.testing.assert_close(logits, expected)


def test_plus_gives_the_hardest_row_the_largest_margin() -> None:
    margin = create_margin("elasticface-cos-plus").double()
    assert isinstance(margin, ElasticFace)
    cos = torch.rand(50, dtype=torch.float64)
    used = margin.margins(cos)
    assert torch.equal(cos.argsort(), used.argsort(descending=True))
