"""What a training loop relies on: `loss = head(embeddings, labels)`."""

import copy
import re
from typing import Any, Literal

import numpy as np
import pytest
import torch

from marginface.errors import InputError
from marginface.margins import create_margin
from marginface.softmax import MarginSoftmax
from softmax_cases import BINARY_MARGINS, SOFTMAX_MARGINS, batch, head_for


def arcface_head(**options: object) -> MarginSoftmax:
    return MarginSoftmax(16, 37, create_margin("arcface"), **options)


def test_weights_are_normal_and_seeded() -> None:
    torch.manual_seed(1)
    first = MarginSoftmax(64, 3000, create_margin("arcface"))
    torch.manual_seed(1)
    second = MarginSoftmax(64, 3000, create_margin("arcface"))
    assert torch.equal(first.weight, second.weight)
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert abs(first.weight.mean().item()) < 1e-4
    assert len(first.weight.unique()) > 0.99 * min(first.weight.numel(), 2**17)
    torch.manual_seed(2)
    assert not torch.equal(first.weight, MarginSoftmax(64, 3000, create_margin("arcface")).weight)


@pytest.mark.parametrize("name", SOFTMAX_MARGINS + BINARY_MARGINS)
def test_state_dict_round_trip(name: str) -> None:
    case = batch()
    first, second = (head_for(name, case.weight_CD, sample_rate=0.5) for _ in range(2))
    first(case.x_ND, case.labels_N)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(first(case.x_ND, case.labels_N), second(case.x_ND, case.labels_N))


@pytest.mark.parametrize("name", ["curricularface", "adaface", "adacos"])
def test_evaluation_leaves_the_state_alone(name: str) -> None:
    case = batch()
    subject = head_for(name, case.weight_CD)
    before = copy.deepcopy(subject.margin.state_dict())
    subject.logits(case.x_ND, case.labels_N)
    assert subject.margin.training
    subject.eval()(case.x_ND, case.labels_N)
    assert all(torch.equal(before[key], value) for key, value in subject.margin.state_dict().items())


def test_logits_are_those_of_the_loss() -> None:
    case = batch()
    subject = head_for("arcface", case.weight_CD)
    logits = subject.logits(case.x_ND, case.labels_N)
    labelled = case.labels_N >= 0
    expected = torch.nn.functional.cross_entropy(logits[labelled], case.labels_N[labelled])
    torch.testing.assert_close(subject(case.x_ND, case.labels_N), expected)


def test_statistics_of_the_last_step() -> None:
    case = batch()
    subject = head_for("arcface", case.weight_CD)
    subject(case.x_ND, case.labels_N)
    labelled = case.labels_N >= 0
    x_VD, own_VD = case.x_ND[labelled], case.weight_CD[case.labels_N[labelled]]
    torch.testing.assert_close(subject.mean_cosine, torch.cosine_similarity(x_VD, own_VD).mean())
    torch.testing.assert_close(subject.mean_norm, x_VD.norm(dim=1).mean())
    assert not {"mean_cosine", "mean_norm"} & subject.state_dict().keys()


def test_float32_inside_autocast() -> None:
    case = batch()
    subject = head_for("arcface", case.weight_CD.float())
    x_ND = case.x_ND.to(torch.bfloat16)
    expected = subject(x_ND.float(), case.labels_N)
    with torch.autocast("cpu", torch.bfloat16):
        x_ND = x_ND.requires_grad_()
        loss = subject(x_ND, case.labels_N)
        loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert x_ND.grad.dtype == torch.bfloat16


def test_bfloat16_weights() -> None:
    case = batch()
    subject = head_for("arcface", case.weight_CD.bfloat16())
    expected = head_for("arcface", case.weight_CD.bfloat16().float())(case.x_ND.float(), case.labels_N)
    loss = subject(case.x_ND.float(), case.labels_N)
    loss.backward()
    assert subject.weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, expected)


def test_frozen_weights_get_no_gradient() -> None:
    case = batch()
    subject = head_for("arcface", case.weight_CD)
    subject.weight.requires_grad_(False)
    x_ND = case.x_ND.clone().requires_grad_()
    subject(x_ND, case.labels_N).backward()
    assert subject.weight.grad is None
    assert x_ND.grad.any()


def test_without_gradient() -> None:
    case = batch()
    with torch.no_grad():
        assert head_for("arcface", case.weight_CD)(case.x_ND, case.labels_N).isfinite()


def test_no_large_tensor_is_kept() -> None:
    """Between forward and backward nothing of the size N×C is alive: memory of 64 x 20,000 numbers is not."""
    case = batch(num_rows=64, num_classes=20_000)
    subject = head_for("curricularface", case.weight_CD.float(), block_size=1000)
    largest = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        if tensor.data_ptr() != subject.weight.data_ptr():
            largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        subject(case.x_ND.float().requires_grad_(), case.labels_N)
    assert largest <= 20_000


def test_bad_labels_and_shapes() -> None:
    subject, x_ND = arcface_head(), torch.randn(3, 16)
    with pytest.raises(InputError, match=r"label 37 of row 1 is not below num_classes 37"):
        subject(x_ND, torch.tensor([0, 37, 1]))
    with pytest.raises(InputError, match=r"embeddings must be a floating-point tensor \(N, 16\), not .* \(3, 8\)"):
        subject(torch.randn(3, 8), torch.tensor([0, 1, 2]))
    with pytest.raises(InputError, match=r"labels must be .*, \(3,\), not of shape \(2,\)"):
        subject(x_ND, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("labels", "given"),
    [
        ([0, 1, 2], "a list"),
        (np.arange(3), "a ndarray"),
        *((torch.tensor([0, 1, 1]).to(dtype), str(dtype)) for dtype in (torch.float32, torch.int16, torch.uint8)),
        (torch.tensor([True, False, True]), "torch.bool"),
        (torch.tensor([[0, 1, 2]]), "of shape (1, 3)"),
    ],
)
@pytest.mark.parametrize("engine", ["streaming", "dense"])
@pytest.mark.parametrize("name", ["arcface", "uniface"])
def test_labels_of_another_kind(name: str, engine: Literal["streaming", "dense"], labels: Any, given: str) -> None:
    head = MarginSoftmax(16, 37, create_margin(name), engine=engine)
    for call in (head, head.logits, lambda x_ND, labels: head.margin(x_ND @ head.weight.T, labels)):
        with pytest.raises(InputError, match=rf"labels must be an int64 tensor .*, not {re.escape(given)}"):
            call(torch.randn(3, 16), labels)


@pytest.mark.parametrize("engine", ["streaming", "dense"])
@pytest.mark.parametrize("name", ["arcface", "uniface"])
def test_labels_in_32_bits(name: str, engine: Literal["streaming", "dense"]) -> None:
    head = MarginSoftmax(16, 37, create_margin(name), engine=engine)
    x_ND, labels_N = torch.randn(3, 16), torch.tensor([0, 36, -1])
    assert torch.equal(head(x_ND, labels_N.int()), head(x_ND, labels_N))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0.0}, "sample_rate"),
        ({"sample_rate": 1.5}, "sample_rate"),
        ({"sub_centers": 0}, "at least 1"),
        ({"block_size": 0}, "at least 1"),
        ({"precision": "int8"}, "precision must be one of auto, float32, tf32, bfloat16"),
        ({"engine": "sparse"}, "engine must be one of streaming, dense"),
        ({"engine": "dense", "sample_rate": 0.5}, "sample_rate below 1"),
        ({"unlabelled": "drop"}, "unlabelled must be one of ignore, negatives"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arcface_head(**options)


def test_losses_without_softmax_refuse_its_options() -> None:
    with pytest.raises(InputError, match="UniFace takes no label_smoothing"):
        MarginSoftmax(16, 37, create_margin("uniface"), label_smoothing=0.1)
