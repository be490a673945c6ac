"""Schedules against their formulas, decay where it belongs, the weight average against its sum."""

import copy
import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from marginface.errors import InputError
from marginface.training.optim import (
    OptimConfig,
    WeightAverage,
    create_optimizer,
    learning_rate,
    parameter_groups,
)


def test_warm_up_rises_linearly_from_nothing() -> None:
    config = OptimConfig(lr=0.4, warmup_epochs=2, schedule="constant")
    assert [learning_rate(config, epoch, 10) for epoch in (0, 0.5, 1, 2, 9)] == [0, 0.1, 0.2, 0.4, 0.4]


def test_multistep_drops_at_each_milestone() -> None:
    config = OptimConfig(lr=1.0, schedule="multistep", milestones=[2, 4.5], gamma=0.1)
    rates = [learning_rate(config, epoch, 10) for epoch in (0, 1.99, 2, 4.49, 4.5, 9)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01], rel=1e-12)


@given(st.floats(0, 10))
def test_cosine_and_poly_follow_their_formulas(epoch: float) -> None:
    cosine = OptimConfig(lr=0.3, schedule="cosine", warmup_epochs=0)
    assert learning_rate(cosine, epoch, 10) == pytest.approx(0.15 * (1 + math.cos(math.pi * epoch / 10)), abs=1e-15)
    poly = OptimConfig(lr=0.3, schedule="poly", power=2)
    assert learning_rate(poly, epoch, 10) == pytest.approx(0.3 * (1 - epoch / 10) ** 2, abs=1e-15)


def test_cosine_ends_at_its_floor() -> None:
    assert learning_rate(OptimConfig(lr=1.0, schedule="cosine", final_lr=0.05), 10, 10) == pytest.approx(0.05)


def test_norms_and_biases_are_not_decayed_unless_asked() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4))
    groups = parameter_groups(net, nn.Identity(), OptimConfig(weight_decay=0.1))
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (4, 0.0)]  # type: ignore[arg-type]
    groups = parameter_groups(net, nn.Identity(), OptimConfig(weight_decay=0.1, decayed="all-but-batch-norms"))
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(3, 0.1), (2, 0.0)]  # type: ignore[arg-type]
    (everything,) = parameter_groups(net, nn.Identity(), OptimConfig(weight_decay=0.1, decayed="all"))
    assert len(everything["params"]) == 5  # type: ignore[arg-type]


def test_frozen_parameters_are_left_out() -> None:
    net = nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    optimizer = create_optimizer(net, nn.Identity(), OptimConfig())
    assert [p.shape for group in optimizer.param_groups for p in group["params"]] == [(2, 2)]


def test_the_average_is_the_recursive_sum() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    average = WeightAverage(net, 0.5)
    expected = copy.deepcopy(net.state_dict())
    for n in range(1, 6):
        net(torch.randn(4, 3, dtype=torch.double))
        with torch.no_grad():
            net[0].weight.add_(1)
        average.update(net)
        keep = min(0.5, (1 + n) / (10 + n))
        for name, value in net.state_dict().items():
            mixed = keep * expected[name] + (1 - keep) * value if value.is_floating_point() else value.clone()
            expected[name] = mixed
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"lr": 0}, "lr"),
        ({"first_layer": 0}, "first_layer"),
        ({"ema": 1.0}, "ema"),
        ({"schedule": "multistep"}, "milestones"),
        ({"milestones": [3, 2]}, "rise"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        OptimConfig(**fields)  # type: ignore[arg-type]


def test_the_learning_rate_rises_from_layer_to_layer() -> None:
    net = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(3)))
    head = nn.Linear(2, 5, bias=False)
    groups = parameter_groups(net, head, OptimConfig(first_layer=0.04))
    shares = {parameter: group["lr_share"] for group in groups for parameter in group["params"]}  # type: ignore[attr-defined]
    assert [shares[layer.weight] for layer in (*net, head)] == pytest.approx([0.04, 0.2, 1, 1], rel=1e-12)


def test_without_a_first_layer_there_are_two_groups() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert [group["lr_share"] for group in parameter_groups(net, nn.Linear(2, 2), OptimConfig())] == [1.0, 1.0]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_fused_updates_are_the_plain_ones(name: Literal["sgd", "adamw"]) -> None:
    """Of weights in channels-last order too, and after going on from a state."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(6, 8, 3, bias=False), nn.PReLU(8), nn.Conv2d(8, 4, 1)).double()
    plain, images = copy.deepcopy(net), torch.randn(2, 6, 5, 5, dtype=torch.double)
    net.to(memory_format=torch.channels_last)
    config = OptimConfig(name=name, lr=0.05)
    fused, expected = create_optimizer(net, nn.Identity(), config), create_optimizer(plain, nn.Identity(), config)
    assert all(group["fused"] for group in fused.param_groups)
    for group in expected.param_groups:
        group["fused"] = False
    for step in range(4):
        for one, optimizer in ((net, fused), (plain, expected)):
            optimizer.zero_grad()
            one(images).square().sum().backward()
            optimizer.step()
        if step == 1:
            state = fused.state_dict()
            fused = create_optimizer(net, nn.Identity(), config)
            fused.load_state_dict(state)
    for value, other in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-9)
