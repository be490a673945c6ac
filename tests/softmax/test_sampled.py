"""Partial FC against InsightFace's numbers, and what a draw must always hold."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from golden_files import arrays, entries, entry, tolerance
from marginface.softmax import MarginSoftmax, head
from marginface.softmax.sampled import choose_classes, columns_of
from softmax_cases import (
    BINARY_MARGINS,
    SOFTMAX_MARGINS,
    batch,
    head_for,
    insightface_margin,
    is_binary,
    margin_for,
    own_labels,
    train_steps,
    worst,
)

ONE_PROCESS = [name for name in entries("pfc/") if entry(name)["world_size"] == 1]


def steps_of(data: dict[str, np.ndarray]) -> list[dict[str, Tensor]]:
    """The recorded steps, each with the names of a single one."""
    if "x" in data:
        return [{key: torch.from_numpy(value) for key, value in data.items()}]
    steps = []
    for suffix in ("_step1", "_step2"):
        steps.append({key.removesuffix(suffix): torch.from_numpy(v) for key, v in data.items() if key.endswith(suffix)})
    return steps


@pytest.mark.parametrize("name", ONE_PROCESS)
def test_equals_insightface(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, data = entry(name), arrays(name)
    weight = torch.from_numpy(data["weight"])
    subject = MarginSoftmax(
        weight.shape[1],
        len(weight),
        insightface_margin(facts["hyper_parameters"]),
        sample_rate=facts["sample_rate"],
        unlabelled="negatives",
        block_size=7,
    ).double()
    subject.weight.data.copy_(weight)
    optimizer = torch.optim.SGD(subject.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in steps_of(data):
        if "perm" in step:
            monkeypatch.setattr(head, "draw_scores", lambda *_, perm=step["perm"]: perm)
        x_ND = step["x"].requires_grad_()
        loss = subject(x_ND, own_labels(step["labels"], len(weight)))
        optimizer.zero_grad()
        loss.backward()
        close = tolerance(name)
        torch.testing.assert_close(loss.detach(), step["loss"].view(()), **close)
        torch.testing.assert_close(x_ND.grad, step["grad_x"], **close)
        torch.testing.assert_close(subject.weight.grad, step["grad_weight"], **close)
        if "weight_after" in step:
            optimizer.step()
            torch.testing.assert_close(subject.weight.detach(), step["weight_after"], **close)


@pytest.mark.parametrize("name", [n for n in ONE_PROCESS if "perm" in entry(n)["arrays"]])
def test_draws_what_insightface_drew(name: str) -> None:
    (step,) = steps_of(arrays(name))
    labels = own_labels(step["labels"], len(step["perm"]))
    chosen = choose_classes(step["perm"], labels, entry(name)["num_sample"])
    assert torch.equal(chosen, step["sampled_index"])


@given(
    labels=st.lists(st.integers(-1, 29), max_size=40),
    num_sample=st.integers(0, 30),
    seed=st.integers(0, 100),
)
@settings(deadline=None)
def test_draw(labels: list[int], num_sample: int, seed: int) -> None:
    labels_V = torch.tensor(labels, dtype=torch.long)
    scores = torch.rand(30, generator=torch.Generator().manual_seed(seed))
    index_S = choose_classes(scores, labels_V, num_sample)
    positives = set(labels) - {-1}
    assert positives <= set(index_S.tolist())
    assert len(index_S) == len(set(index_S.tolist())) == max(num_sample, len(positives))
    assert index_S.tolist() == sorted(index_S.tolist())
    column_V = columns_of(labels_V, index_S)
    assert [-1 if c < 0 else int(index_S[c]) for c in column_V.tolist()] == labels


@pytest.mark.parametrize("name", SOFTMAX_MARGINS + BINARY_MARGINS)
def test_all_margins_equal_dense_over_the_drawn_classes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {} if is_binary(name) else {"sub_centers": 2, "label_smoothing": 0.1}
    sub_centers = options.get("sub_centers", 1)
    case = batch(num_classes=40, sub_centers=sub_centers)
    scores = torch.rand(40, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(head, "draw_scores", lambda *_: scores)
    index_S = choose_classes(scores, case.labels_N, 28)
    rows = (sub_centers * index_S[:, None] + torch.arange(sub_centers)).flatten()
    subject = head_for(name, case.weight_CD, sample_rate=0.7, block_size=9, **options)
    found = train_steps(subject, case.x_ND, case.labels_N)
    small_labels = columns_of(case.labels_N, index_S)
    # the margin knows the number of all classes; the classes beside it are those drawn
    dense = MarginSoftmax(16, 28, margin_for(name, 40), engine="dense", **options).double()
    dense.weight.data.copy_(case.weight_CD[rows])
    expected = train_steps(dense, case.x_ND, small_labels)
    for key in [key for key in expected if key.startswith(("weight", "bias"))]:
        whole = torch.zeros_like(found[key])
        whole[rows] = expected[key]
        expected[key] = whole
    assert worst(found, expected) <= (1e-9 if is_binary(name) else 1e-10)  # dense rounds softplus above 20


def test_draws_differ_by_step_and_repeat_by_seed() -> None:
    def draws(seed: int) -> list[list[int]]:
        subject = head_for("arcface", batch().weight_CD, sample_rate=0.3, seed=seed)
        none = torch.zeros(0, dtype=torch.long)
        return [subject._draw(none).tolist() for _ in range(3)]

    assert draws(0) == draws(0)
    assert len({tuple(draw) for draw in draws(0) + draws(1)}) == 6


def test_a_resumed_run_draws_what_the_other_would_have() -> None:
    case = batch()
    whole = head_for("arcface", case.weight_CD, sample_rate=0.3)
    expected = train_steps(whole, case.x_ND, case.labels_N, 3)
    first, second = (head_for("arcface", case.weight_CD, sample_rate=0.3) for _ in range(2))
    train_steps(first, case.x_ND, case.labels_N, 2)
    second.load_state_dict(first.state_dict())
    assert torch.equal(train_steps(second, case.x_ND, case.labels_N, 1)["loss0"], expected["loss2"])
