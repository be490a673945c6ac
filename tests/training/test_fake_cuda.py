"""The trainer's whole step on a CUDA device that is not there: every tensor in its place, and the host never waits.

Left out is what reads the loss once a step while the device computes (`training/pulse.py`).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from fake_cuda import fake_cuda, on
from marginface.embedder import ModelConfig
from marginface.loading.loader import Batch, DataConfig
from marginface.training.config import Config, LoopConfig, MarginConfig, SoftmaxConfig
from marginface.training.loop import Trainer
from marginface.training.measures import head_numbers
from marginface.training.optim import OptimConfig, WeightAverage, create_optimizer
from marginface.training.pulse import News
from marginface.training.run import Run
from people import write_people

CASES = {
    "plain": {},
    "clipped, averaged": {"optim": OptimConfig(clip_norm=5.0, ema=0.99)},
    "accumulated": {"train": LoopConfig(accumulate=2)},
    "recomputed": {"train": LoopConfig(activation_checkpointing=True)},
    "AdamW": {"optim": OptimConfig(name="adamw", clip_norm=5.0)},
    "Partial FC": {"softmax": SoftmaxConfig(sample_rate=0.5)},
    "frozen, growing margin": {
        "train": LoopConfig(freeze_norms=True),
        "margin": MarginConfig("curricularface", warmup_epochs=1.0),
    },
}


class SilentPulse:
    """Sends nothing to the host."""

    def send(self, loss: Tensor, gradient_norm: Tensor, *counts: int) -> None:
        assert loss.is_cuda
        assert gradient_norm.is_cuda

    def receive(self) -> News:
        return News(1.0, 1.0, 0, 0, 0, 0)


def trainer_for(case: str, people: Path) -> Trainer:
    model = ModelConfig("small", 16, {"width": 4})
    config = Config(data=DataConfig(train=str(people), val=[], batch_size=8), model=model, **CASES[case])
    return Trainer(config, Fabric(accelerator="cpu", devices=1), Console(quiet=True))


def move(trainer: Trainer) -> None:
    """To the device; new parameters need a new optimiser."""
    config, backbone = trainer.config, trainer.embedder.backbone
    on("cuda", trainer.head)
    on("cuda", backbone)
    optimizer = create_optimizer(backbone, trainer.head, config.optim)
    if config.softmax.sample_rate < 1:
        trainer.head.update_drawn(optimizer)
    trainer.optimizer = trainer.fabric.setup_optimizers(optimizer)
    if trainer.average:
        trainer.average = WeightAverage(backbone, config.optim.ema)
    trainer.gradient_norm = torch.zeros((), device="cuda")
    trainer.pulse = SilentPulse()


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "people")


@pytest.mark.parametrize("case", CASES)
def test_nothing_waits(case: str, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_for(case, people)
    monkeypatch.setattr(trainer.fabric, "to_device", lambda x: x.to("cuda", non_blocking=True))
    batch = Batch(np.zeros((8, 112, 112, 3), np.uint8), np.arange(8), np.arange(8), {})
    with fake_cuda(monkeypatch) as waits:
        move(trainer)
        for _ in range(2):
            loss = trainer.train_step(batch, Run(tmp_path))
        assert loss.is_cuda
        numbers = head_numbers(trainer.head)
        assert {value.device.type for name, value in numbers.items() if name != "margin_iteration"} == {"cuda"}
    assert waits.found == []
