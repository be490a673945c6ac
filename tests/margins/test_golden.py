"""Every head of the reference set, in float64 on the dense engine: logits, loss, gradients, states.

The only knowledge kept here is which reference family is which margin with which options (`FAMILIES`);
inputs, hyper-parameters and tolerances come from the manifest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from golden_files import arrays, entries, entry, tolerance
from marginface.margins import BinaryMargin, Margin, create_margin
from marginface.margins.base import valid_rows
from marginface.margins.elasticface import ElasticFace
from marginface.margins.magface import MagFace
from marginface.margins.sphereface import SphereFace, psi
from marginface.softmax.binary import binary_loss
from marginface.softmax.dense import dense_logits, dense_loss, dense_products, normalise

Hyper = dict[str, Any]


@dataclass
class Family:
    """A reference implementation: our margin, our options for it, and what is odd about its loss."""

    margin: str
    options: Callable[[Hyper], Hyper]
    focal_gamma: Callable[[Hyper], float] = lambda hp: 0.0
    focal_constant: bool = False  # the focal weight has no gradient (clcarwin)
    unit_weight: bool = False  # the weights are normalised in place: no gradient through the normalisation
    clamp_before: float = 0.0  # the cosines are clamped, with zero gradient, before a straight-through margin
    logit_shift: Callable[[Hyper, Tensor], Tensor] = field(default=lambda hp, norms: torch.zeros(()))


def plain(**fixed: Any) -> Callable[[Hyper], Hyper]:
    return lambda hp: {key: hp[key] for key in ("s", "m") if key in hp} | fixed


def combined(hp: Hyper) -> tuple[str, Hyper]:
    """CombinedMarginLoss: a CosFace as soon as m3 > 0."""
    common = {"s": hp["s"], "interclass_filter": hp["interclass_filtering_threshold"]}
    if hp["m3"] > 0:
        return "cosface", common | {"m": hp["m3"]}
    return "combined", common | {key: hp[key] for key in ("m1", "m2", "m3")}


def m123(**fixed: Any) -> Callable[[Hyper], Hyper]:
    return lambda hp: {"s": hp["s"], "m1": hp["m1"], "m2": hp.get("m2", 0), "m3": hp.get("m3", 0)} | fixed


def magface(**fixed: Any) -> Callable[[Hyper], Hyper]:
    def options(hp: Hyper) -> Hyper:
        easy = {"overflow": "easy" if hp["easy_margin"] else "linear"} if "easy_margin" in hp else {}
        return {key: hp[key] for key in ("s", "l_a", "u_a", "l_m", "u_m", "lambda_g")} | easy | fixed

    return options


def magface_femb_shift(hp: Hyper, norms: Tensor) -> Tensor:
    a = norms.clamp(hp["l_a"], hp["u_a"])
    return hp["lambda_g"] * (a / hp["u_a"] ** 2 + 1 / a).mean()


def adaface(**fixed: Any) -> Callable[[Hyper], Hyper]:
    def options(hp: Hyper) -> Hyper:
        interclass_filter = hp.get("interclass_filtering_threshold", 0.0)
        return {key: hp[key] for key in ("s", "m", "h", "t_alpha")} | {"interclass_filter": interclass_filter} | fixed

    return options


def elastic(**fixed: Any) -> Callable[[Hyper], Hyper]:
    return lambda hp: {key: hp[key] for key in ("s", "m", "std")} | fixed


def openvino(hp: Hyper) -> Hyper:
    return {
        "s": hp["s"],
        "m": hp["m"],
        "t": hp["t"],
        "target": {"cos": "am", "arc": "arc"}[hp["margin_type"]],
    }


def openvino_gamma(hp: Hyper) -> float:
    return hp["gamma"] if hp["t"] == 1 else 0.0  # support vectors switch the focal weight off there


STRAIGHT = {"margin_grad": "straight_through"}
TRUE = {"margin_grad": "true"}
EASY = {True: "easy", False: "linear"}
INSIGHTFACE = Family("combined", lambda hp: combined(hp)[1])
OPENVINO = Family("sv-softmax", openvino, focal_gamma=openvino_gamma)
ADAFACE = Family("adaface", adaface(cos_clamp=1e-3))
RONGHUAIYANG = Family("arcface", lambda hp: {"s": hp["s"], "m": hp["m"], "overflow": EASY[hp["easy_margin"]]} | TRUE)

FAMILIES = {
    "linear": Family("softmax", lambda hp: {}),
    "normface": Family("normface", lambda hp: {"s": hp["s"]}),
    "normface_coco_inplace": Family("normface", plain(), unit_weight=True),
    "sphereface_femb": Family("combined", m123(cos_clamp=1e-6, **TRUE)),
    "sphereface_asoftmax_clcarwin": Family(
        "sphereface",
        lambda hp: {"m": hp["m"], "lambda_base": 1500.0, "lambda_gamma": 0.1},
        focal_gamma=lambda hp: hp["gamma"],
        focal_constant=True,
    ),
    "sphereface_asoftmax_yakhyo": Family("sphereface", lambda hp: {"m": hp["m"]}),
    "sphereface_opensphere": Family("sphereface-r", plain(cos_clamp=1e-5), unit_weight=True),
    "sphereface2_opensphere": Family("sphereface2", dict),
    "cosface_insightface": Family("cosface", plain()),
    "cosface_elastic": Family("cosface", plain()),
    "cosface_adaface_repo": Family("cosface", plain(cos_clamp=1e-4)),
    "cosface_femb": Family("cosface", plain(cos_clamp=1e-6)),
    "cosface_opensphere": Family("cosface", plain(), unit_weight=True),
    "cosface_yakhyo": Family("cosface", plain()),
    "arcface_insightface": Family("arcface", plain()),
    "arcface_combined_insightface": INSIGHTFACE,
    "arcface_combined_filter": INSIGHTFACE,
    "combined_m3": INSIGHTFACE,
    "combined_m123_ignores_m1_m2": INSIGHTFACE,
    "combined_femb": Family("combined", m123(cos_clamp=1e-6, **TRUE)),
    "arcface_femb": Family("arcface", plain(cos_clamp=1e-6, **TRUE)),
    "arcface_femb_orig": Family("arcface", plain(), clamp_before=1e-6),
    "arcface_ronghuaiyang_hard": RONGHUAIYANG,
    "arcface_ronghuaiyang_easy": RONGHUAIYANG,
    "arcface_elastic_arcos_add": Family("arcface", plain(**TRUE)),
    "arcface_adaface_repo": Family("arcface", plain(overflow="clip", cos_clamp=1e-4, **TRUE)),
    "arcface_opensphere": Family("arcface", plain(overflow="clip", clip_eps=1e-5, cos_clamp=1e-5), unit_weight=True),
    "magface_easy": Family("magface", magface()),
    "magface_hard": Family("magface", magface()),
    "magface_parallel_cos": Family("magface", magface(target="cos")),
    "magface_femb": Family(
        "magface",
        magface(overflow="none", cos_clamp=1e-6, lambda_g=0.0),
        logit_shift=magface_femb_shift,
    ),
    "elastic_arc": Family("elasticface-arc", elastic()),
    "elastic_cos": Family("elasticface-cos", elastic()),
    "elastic_arc_plus": Family("elasticface-arc-plus", elastic(plus_mode="released")),
    "elastic_cos_plus": Family("elasticface-cos-plus", elastic(plus_mode="released")),
    "adaface": ADAFACE,
    "adaface_talpha1": ADAFACE,
    "adaface_cvlface": Family("adaface", adaface(eps=0.0, **STRAIGHT)),
    "openvino_cos": OPENVINO,
    "openvino_arc": OPENVINO,
    "openvino_cos_sv": OPENVINO,
    "openvino_arc_sv": OPENVINO,
    "openvino_cos_focal": OPENVINO,
    "openvino_arc_focal": OPENVINO,
    "openvino_cos_sv_focal": OPENVINO,
}


def family_of(name: str) -> Family:
    return FAMILIES[name.removeprefix("heads/").rsplit("__", 1)[0]]


def build(name: str, num_classes: int) -> Margin | BinaryMargin:
    """Our margin for one entry, float64, in training mode."""
    family, hp = family_of(name), entry(name)["hyper_parameters"]
    if family is INSIGHTFACE:
        margin_name, options = combined(hp)
        return create_margin(margin_name, **options).double()
    options = family.options(hp)
    if family.margin == "sphereface2":
        options = options | {"num_classes": num_classes}
    return create_margin(family.margin, **options).double()


def close(name: str, what: str, ours: Tensor, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, err_msg=what, **tolerance(name))


def special(name: str) -> bool:
    """Whether the reference's loss or weights are not what a loss of ours does: see `Family`, `reference_loss`."""
    family = family_of(name)
    return family.unit_weight or family.focal_constant or family.clamp_before > 0 or "loss_value" in entry(name)


def special_logits(name: str, margin: Margin, x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The margin as a plain module on cosines made the reference's way."""
    family = family_of(name)
    unit, norms = normalise(x)
    rows = weight if family.unit_weight else normalise(weight)[0]
    cos = unit @ rows.T
    if family.clamp_before > 0:
        cos = cos.clamp(family.clamp_before - 1, 1 - family.clamp_before)
    return margin(cos, labels, norms)


def reference_loss(name: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(loss to differentiate, loss to report) as the manifest describes it for one entry, from our logits."""
    family, hp = family_of(name), entry(name)["hyper_parameters"]
    rows = valid_rows(labels, logits.shape[1])
    ce = F.cross_entropy(logits[rows], labels[rows], reduction="none")
    if "loss_value" in entry(name):  # DistCrossEntropy: all rows count, the reported probability is ≥ 1e-30
        least = -np.log(1e-30)
        ignored = logits[(labels < 0) | (labels >= logits.shape[1])]
        value = (ce.clamp(max=least).sum() + least * len(ignored)) / len(labels)
        return (ce.sum() + ignored.logsumexp(1).sum()) / len(labels), value
    if family.focal_constant:
        ce = (1 - torch.exp(-ce.detach())) ** family.focal_gamma(hp) * ce
    return ce.mean(), ce.mean()


def inputs(name: str, data: dict[str, np.ndarray], suffix: str) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight, labels of one step; a step without inputs of its own shares those of the entry."""
    own = suffix if f"x{suffix}" in data else ""
    x, weight = torch.tensor(data[f"x{own}"]), torch.tensor(data["weight"])
    if family_of(name).unit_weight:
        weight = normalise(weight)[0]
    return x.requires_grad_(), weight.requires_grad_(), torch.tensor(data[f"labels{own}"])


def check_step(name: str, margin: Margin, data: dict[str, np.ndarray], suffix: str = "") -> None:
    """One training step against the arrays whose names end in `suffix`."""
    family, hp = family_of(name), entry(name)["hyper_parameters"]
    x, weight, labels = inputs(name, data, suffix)
    if special(name):
        logits = special_logits(name, margin, x, weight, labels)
    else:
        logits = dense_logits(x, weight, labels, margin)
    close(name, "logits", logits + family.logit_shift(hp, normalise(x)[1]), data[f"logits{suffix}"])

    margin.eval()  # the state has moved once; the losses below are of the same step
    ours = dense_loss(x, weight, labels, margin, focal_gamma=family.focal_gamma(hp))
    margin.train()
    loss, value = reference_loss(name, logits, labels) if special(name) else (ours, ours)
    close(name, "loss", value, data[f"loss{suffix}"])
    if "loss_valid_rows_only" in data:
        close(name, "loss of the valid rows", ours, data["loss_valid_rows_only"])
    for what, grad in zip(("x", "weight"), torch.autograd.grad(loss, (x, weight)), strict=True):
        assert torch.isfinite(grad).all(), what
        if f"grad_{what}{suffix}" in data:
            close(name, f"grad_{what}", grad, data[f"grad_{what}{suffix}"])


NAMES = entries("heads/")


def named(*kinds: str) -> list[str]:
    """Entries that are played in the given way."""

    def kind(name: str) -> str:
        if "multi_step" in entry(name):
            return "steps"
        if "per_iteration" in entry(name):
            return "iterations"
        return "binary" if "sphereface2" in name else "single"

    return [name for name in NAMES if kind(name) in kinds]


def test_every_entry_is_played() -> None:
    assert sorted(named("single", "steps", "iterations", "binary")) == NAMES
    assert {name.removeprefix("heads/").rsplit("__", 1)[0] for name in NAMES} <= set(FAMILIES)


@pytest.mark.parametrize("name", named("single"))
def test_single_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = arrays(name)
    margin = build(name, len(data["weight"]))
    if isinstance(margin, ElasticFace):
        monkeypatch.setattr(margin, "sample", lambda rows: torch.tensor(data["margin_sampled"]))
        rows = valid_rows(torch.tensor(data["labels"]), len(data["weight"])).numpy()
        cos = dense_products(torch.tensor(data["x"]), torch.tensor(data["weight"]), margin)[0].numpy()
        used = margin.margins(torch.tensor(cos[rows, data["labels"][rows]]))
        close(name, "margin_used", used, data["margin_used"])
    if isinstance(margin, MagFace) and "margin_used" in data:
        norms = torch.tensor(data["x"]).norm(dim=1)
        close(name, "margin_used", margin.margins(norms), data["margin_used"])
        close(name, "loss_g", margin.regulariser(norms) / margin.lambda_g, data["loss_g"])
    assert isinstance(margin, Margin)
    check_step(name, margin, data)


@pytest.mark.parametrize("name", named("steps"))
def test_several_steps(name: str) -> None:
    data = arrays(name)
    margin = build(name, len(data["weight"]))
    states = [key.removesuffix("_step0") for key in data if key.endswith("_step0")]
    for state in states:
        close(name, state, getattr(margin, state), data[f"{state}_step0"])
    assert isinstance(margin, Margin)
    for step in range(1, entry(name)["multi_step"] + 1):
        check_step(name, margin, data, f"_step{step}")
        for state in states:
            close(name, f"{state} {step}", getattr(margin, state), data[f"{state}_step{step}"])


@pytest.mark.parametrize("name", named("iterations"))
def test_annealing(name: str) -> None:
    data = arrays(name)
    margin = build(name, len(data["weight"]))
    assert isinstance(margin, SphereFace)
    for iteration in entry(name)["hyper_parameters"]["iterations"]:
        margin.iteration.fill_(iteration - 1)
        check_step(name, margin, data, f"_it{iteration}")
        close(name, "lambda", torch.tensor(margin.annealing()), data[f"lambda_it{iteration}"])
    if "phi_times_norm" in data:
        cos, norms = dense_products(torch.tensor(data["x"]), torch.tensor(data["weight"]), margin)
        close(name, "cos_times_norm", cos * norms[:, None], data["cos_times_norm"])
        close(name, "phi_times_norm", psi(cos, margin.m) * norms[:, None], data["phi_times_norm"])


@pytest.mark.parametrize("name", named("binary"))
def test_binary(name: str) -> None:
    data = arrays(name)
    margin = build(name, len(data["weight"]))
    assert isinstance(margin, BinaryMargin)
    x, labels = torch.tensor(data["x"], requires_grad=True), torch.tensor(data["labels"])
    unit = normalise(torch.tensor(data["weight"]))[0].requires_grad_()  # the reference normalises in place
    bias = torch.tensor(data["bias_init"])
    torch.testing.assert_close(margin.bias.detach(), bias, rtol=1e-6, atol=0)  # float32 when built
    with torch.no_grad():
        margin.bias.copy_(bias)
    logits = margin(normalise(x)[0] @ unit.T, labels)
    loss = margin.loss(logits, labels)
    close(name, "logits", logits, data["logits"])
    close(name, "loss", loss, data["loss"])
    close(name, "loss of the dense engine", binary_loss(x, unit, labels, margin), data["loss"])
    grads = torch.autograd.grad(loss, (x, unit, margin.bias))
    for what, grad in zip(("x", "weight", "bias"), grads, strict=True):
        close(name, f"grad_{what}", grad, data[f"grad_{what}"])
