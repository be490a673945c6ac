"""The update inside the backward pass against torch.optim.SGD; classes that were not drawn stay as they are."""

import pytest
import torch

from marginface.errors import InputError
from marginface.softmax import FusedSGD, head
from softmax_cases import batch, head_for

LR = (0.1, 0.3, 0.05)


@pytest.mark.parametrize(
    ("name", "sub_centers"),
    [("uniface", 1), *((name, count) for name in ("softmax", "arcface", "curricularface") for count in (1, 3))],
)
def test_equals_sgd(name: str, sub_centers: int) -> None:
    case = batch(sub_centers=sub_centers)
    plain, fused = (head_for(name, case.weight_CD, block_size=5, sub_centers=sub_centers) for _ in range(2))
    optimizer = torch.optim.SGD([plain.weight], lr=LR[0], momentum=0.9, weight_decay=5e-4)
    settings = fused.fuse_sgd(lr=LR[0], momentum=0.9, weight_decay=5e-4)
    for lr in LR:
        settings.lr = optimizer.param_groups[0]["lr"] = lr
        gradients = []
        for subject in (plain, fused):
            x_ND = case.x_ND.clone().requires_grad_()
            subject(x_ND, case.labels_N).backward()
            gradients.append(x_ND.grad)
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
        optimizer.step()
        optimizer.zero_grad()
        assert fused.weight.grad is None
        torch.testing.assert_close(fused.weight, plain.weight, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(fused.momentum, optimizer.state[plain.weight]["momentum_buffer"])


def test_drawn_classes_alone_are_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    case = batch(num_classes=40)
    subject = head_for("arcface", case.weight_CD, sample_rate=0.5, block_size=6)
    subject.fuse_sgd(lr=0.1)
    subject.momentum.normal_()
    scores = torch.rand(40)
    monkeypatch.setattr(head, "draw_scores", lambda *_: scores)
    index_S = head.choose_classes(scores, case.labels_N, 20)
    reference = torch.nn.Parameter(case.weight_CD[index_S].clone())
    before, momentum = subject.weight.detach().clone(), subject.momentum.clone()
    optimizer = torch.optim.SGD([reference], lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer.state[reference]["momentum_buffer"] = momentum[index_S].clone()
    small = head_for("arcface", reference.detach())
    small(case.x_ND, head.columns_of(case.labels_N, index_S)).backward()
    reference.grad = small.weight.grad
    optimizer.step()
    subject(case.x_ND.clone().requires_grad_(), case.labels_N).backward()
    torch.testing.assert_close(subject.weight[index_S], reference)
    others = torch.ones(40, dtype=torch.bool).index_fill(0, index_S, False)
    assert torch.equal(subject.weight[others], before[others])
    assert torch.equal(subject.momentum[others], momentum[others])


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_ordinary_optimiser_is_shown_the_drawn_classes_alone(
    kind: type[torch.optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"lr": 0.1, "weight_decay": 0.05} | ({"momentum": 0.9} if kind is torch.optim.SGD else {})
    case = batch(num_classes=40, sub_centers=2)
    subject = head_for("arcface", case.weight_CD, sample_rate=0.5, block_size=6, sub_centers=2)
    optimizer = kind([subject.weight], **options)
    subject.update_drawn(optimizer)
    pointer = subject.weight.data_ptr()
    index_S = head.choose_classes(torch.linspace(0, 0.9, 40), case.labels_N, 20)
    rows = (2 * index_S[:, None] + torch.arange(2)).flatten()
    small = head_for("arcface", case.weight_CD[rows], sub_centers=2)
    reference = kind([small.weight], **options)
    monkeypatch.setattr(head, "draw_scores", lambda *_: torch.linspace(0, 0.9, 40))
    others = torch.ones(80, dtype=torch.bool).index_fill(0, rows, False)
    for _ in range(3):
        for _ in range(2):  # gradients of two batches add up
            subject(case.x_ND, case.labels_N).backward()
            small(case.x_ND, head.columns_of(case.labels_N, index_S)).backward()
        optimizer.step()
        reference.step()
        torch.testing.assert_close(subject.weight[rows], small.weight)
        assert torch.equal(subject.weight[others], case.weight_CD[others])
        for name, value in reference.state[small.weight].items():
            found = optimizer.state[subject.weight][name]
            if value.shape == small.weight.shape:
                torch.testing.assert_close(found[rows], value)
                assert not found[others].any()
            else:
                assert torch.equal(found, value)
        optimizer.zero_grad()
        reference.zero_grad()
    assert subject.weight.data_ptr() == pointer
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()  # without a gradient: nothing happens
    torch.testing.assert_close(subject.weight[rows], small.weight)


@pytest.mark.parametrize("batches", [1, 2])
def test_drawn_rows_are_sorted_only_where_several_batches_add_up(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch forgets that the rows of one gradient are sorted; on a GPU sorting them is waiting for the device."""
    case = batch(num_classes=40)
    subject = head_for("arcface", case.weight_CD, sample_rate=0.5)
    optimizer = torch.optim.SGD([subject.weight], lr=0.1)
    subject.update_drawn(optimizer)
    for _ in range(batches):
        subject(case.x_ND, case.labels_N).backward()
    assert not subject.weight.grad.is_coalesced()
    expected = case.weight_CD - 0.1 * subject.weight.grad.to_dense()
    calls = []
    coalesce = torch.Tensor.coalesce
    monkeypatch.setattr(torch.Tensor, "coalesce", lambda grad: calls.append(grad) or coalesce(grad))
    optimizer.step()
    assert len(calls) == batches - 1
    torch.testing.assert_close(subject.weight.detach(), expected, rtol=1e-12, atol=1e-14)


def test_a_draw_of_other_classes_leaves_the_first_ones_and_their_state() -> None:
    case = batch(num_classes=40)
    subject = head_for("cosface", case.weight_CD, sample_rate=0.3)
    optimizer = torch.optim.SGD([subject.weight], lr=0.1, momentum=0.9, weight_decay=0.05)
    subject.update_drawn(optimizer)
    for _ in range(4):
        before = subject.weight.detach().clone()
        momentum = optimizer.state[subject.weight].get("momentum_buffer", torch.zeros(40, 16)).clone()
        optimizer.zero_grad()
        subject(case.x_ND, case.labels_N).backward()
        drawn = torch.zeros(40, dtype=torch.bool).index_fill(0, subject.weight.grad.coalesce().indices()[0], True)
        optimizer.step()
        assert drawn.sum() < 40
        assert torch.equal(subject.weight[~drawn], before[~drawn])
        assert (subject.weight[drawn] != before[drawn]).any(1).all()
        assert torch.equal(
            optimizer.state[subject.weight]["momentum_buffer"][~drawn].double(), momentum[~drawn].double()
        )


def test_momentum_is_checkpointed() -> None:
    case = batch()
    first, second = (head_for("arcface", case.weight_CD) for _ in range(2))
    for subject in (first, second):
        subject.fuse_sgd(lr=0.1)
    first(case.x_ND.clone().requires_grad_(), case.labels_N).backward()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.momentum, second.momentum)
    assert first.momentum.any()


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="must not be negative"):
        FusedSGD(lr=-1.0)
