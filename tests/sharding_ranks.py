"""Runs for tests/training/test_sharding.py: a tiny transformer, copied to the processes or split over them."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from marginface.backbones import BACKBONES
from marginface.backbones.vit import ViT
from marginface.training.checkpoint import open_newest
from marginface.training.loop import Trainer
from marginface.training.run import Run
from marginface.training.start import launch
from marginface.weights.parts import own
from training_ranks import configure, steps

BACKBONES["tiny"] = partial(ViT, dim=18, depth=3, heads=2)  # 18 and 54 rows are not divided evenly by 4 processes
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optim.clip_norm": 0.5, "optim.ema": 0.9},
    "adamw": {"optim.name": "adamw", "train.accumulate": 2, "train.activation_checkpointing": True},
    "bfloat16": {"trainer.precision": "bf16-mixed", "train.freeze": "patch_embed"},
}
EXACT = ("sgd", "adamw")  # where the number of processes makes no difference; bfloat16 rounds with each
SAVED_AT, STEPS = 15, 20


def trainer(people: Path, name: str, split: bool) -> Trainer:
    changes = {
        "model.backbone": "tiny",
        "model.options": {"drop_path": 0.0, "mask_ratio": None},
        "trainer.shard_backbone": split,
    }
    config = configure(people, **changes, **CASES[name])
    return Trainer(config, launch(config.trainer), Console(quiet=True))


def train(subject: Trainer, number: int) -> dict[str, Any]:
    """Losses, norms of the gradient, and the model in the end."""
    losses, norms = [], []
    for _ in range(number):
        losses += steps(subject, 1)
        norms.append(float(subject.gradient_norm))
    model = {key: value.clone() for key, value in subject.model.backbone.state_dict().items()}
    return {"losses": torch.tensor(losses), "norms": torch.tensor(norms), "model": model}


def copied_and_split(rank: int, people: Path, folder: Path, size: int) -> None:
    """Two processes train both ways, save, and go on with the other's; others go on with what was split."""
    found: dict[str, Any] = {}
    for name, split in product(CASES, (False, True) if size == 2 else ()):
        subject = trainer(people, name, split)
        first = train(subject, SAVED_AT)
        subject.checkpoint(Run(folder / f"{name}-{split}"))
        found[f"{name}-{split}"] = first, train(subject, STEPS - SAVED_AT)
    for name, saved in product(EXACT, (False, True) if size == 2 else (True,)):
        subject = trainer(people, name, split=not saved or size != 2)
        newest = open_newest(Run(folder / f"{name}-{saved}"), print)
        assert newest
        subject.resume(*newest)
        found[f"{name}-{saved}-resumed"] = train(subject, STEPS - SAVED_AT)
    parameters = list(subject.embedder.backbone.parameters())
    found["share"] = sum(own(p).numel() for p in parameters) / sum(p.numel() for p in parameters)
    if rank == 0:
        torch.save(found, folder / f"{size}.pt")
