"""The update inside the backward pass against torch.optim.SGD; classes that were not drawn stay as they are."""

import pytest
import torch

from marginface.errors import InputError
from marginface.softmax import FusedSGD, head
from softmax_cases import batch, head_for

LR = (0.1, 0.3, 0.05)


@pytest.mark.parametrize("sub_centers", [1, 3])
@pytest.mark.parametrize("name", ["softmax", "arcface", "curricularface", "uniface"])
def test_equals_sgd(name: str, sub_centers: int) -> None:
    if name == "uniface" and sub_centers > 1:
        pytest.skip("no sub-centers without a softmax")
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
