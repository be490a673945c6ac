"""The loop beside its runs: Partial FC lets classes that are not drawn rest, and clipping is the backbone's alone."""

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from rich.console import Console
from torch import Tensor

from marginface import cli
from marginface.evaluate.saved import find_models
from marginface.loading.loader import Batch
from marginface.training.loop import Trainer
from marginface.training.run import Run
from people import write_people
from training_ranks import configure, steps

TINY = ["--model.backbone=small", "--model.options.width=4", "--model.num_features=16", "--data.val=[]"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_classes_not_drawn_rest(optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = write_people(tmp_path / "people")
    train_step = Trainer.train_step
    moved = []

    def watched(self: Trainer, batch: Batch, run: Run) -> Tensor:
        before = self.head.weight.detach().clone()
        loss = train_step(self, batch, run)
        rows = (self.head.weight.detach() != before).any(1).nonzero()[:, 0]
        assert rows.tolist() == sorted(set(batch.labels.tolist()))
        moved.append(len(rows))
        return loss

    monkeypatch.setattr(Trainer, "train_step", watched)
    words = [f"--data.train={people}", "--data.batch_size=16", f"--output={tmp_path / 'runs'}", "--train.epochs=0.5"]
    words += [f"--optim.name={optimizer}", "--optim.warmup_epochs=0", "--optim.lr=0.01", "--optim.clip_norm=0.1"]
    cli.main(["train", *words, *TINY, "--softmax.sample_rate=0.01"])  # so little that the batch's own classes are all
    assert len(moved) == 3


def test_clipping_is_the_backbones_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = write_people(tmp_path / "people")
    norms = []
    forward_backward = Trainer._forward_backward

    def enlarged(self: Trainer, images: Tensor, labels: Tensor) -> Tensor:
        loss = forward_backward(self, images, labels)
        self.head.weight.grad *= 1e6
        return loss

    def step(self: torch.optim.SGD, closure: None = None) -> None:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append([float(grad.norm()) for grad in gradients])

    monkeypatch.setattr(Trainer, "_forward_backward", enlarged)
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    words = [f"--data.train={people}", "--data.batch_size=16", f"--output={tmp_path / 'runs'}", "--train.epochs=0.1"]
    cli.main(["train", *words, *TINY, "--optim.name=sgd", "--optim.clip_norm=0.1"])
    (norms_of_step,) = norms
    head = max(norms_of_step)
    rest = sum(norm**2 for norm in norms_of_step if norm != head) ** 0.5
    assert head > 100
    assert rest == pytest.approx(0.1, rel=1e-3)


def test_every_evaluated_model_is_kept_when_asked(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people")
    words = [f"--data.train={people}", "--data.batch_size=16", f"--output={tmp_path / 'runs'}", "--train.epochs=2"]
    cli.main(["train", *words, *TINY, "--train.eval_every=5", "--train.keep_models=true", "--name=kept"])
    found = find_models(tmp_path / "runs" / "kept")
    assert [path.name for path in found] == ["step-5", "step-10", "step-12"]
    assert [*found.values()][-1].startswith("step-12 (")


def test_scaled_gradients_are_clipped(tmp_path: Path) -> None:
    """16-mixed, as on a GPU: a fused optimiser would unscale them itself, which is too late."""
    people = write_people(tmp_path / "people", people=6)
    changes = {"optim.clip_norm": 0.01, "optim.lr": 1.0, "optim.momentum": 0.0, "optim.weight_decay": 0.0}
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0))
    fabric = Fabric(accelerator="cpu", devices=1, plugins=precision)
    trainer = Trainer(configure(people, **changes), fabric, Console(quiet=True))
    before = [parameter.detach().clone() for parameter in trainer.embedder.backbone.parameters()]
    steps(trainer, 1)
    after = [parameter.detach() for parameter in trainer.embedder.backbone.parameters()]
    moved = sum(float((one - other).square().sum()) for one, other in zip(before, after, strict=True)) ** 0.5
    assert moved == pytest.approx(0.01, rel=1e-2)
