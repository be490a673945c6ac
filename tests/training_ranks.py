"""Runs for the tests of `training/`: in processes forked from one that has imported everything, alone or in a group."""

import multiprocessing
import os
import resource
import signal
import socket
import sys
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from marginface import cli
from marginface.evaluate.embeddings import both_passes, embed_images
from marginface.loading import loader
from marginface.training.checkpoint import open_newest
from marginface.training.config import Config
from marginface.training.loop import Trainer
from marginface.training.run import Run
from marginface.training.start import launch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["training_ranks"])

BATCH = 12  # is divided by 1, 2, 3 and 4
STEPS, SAVED_AT, RESUMED_TO = 50, 5, 10
STATEFUL = {  # margins with buffers or parameters, and those that draw
    "adaface": {}, "curricularface": {}, "adacos": {}, "sphereface": {}, "sphereface2": {}, "uniface": {},
    "softmax": {"bias": True}, "elasticface-arc": {}, "elasticface-cos-plus": {"plus_mode": "released"},
}  # fmt: skip
SAVED: dict[str, dict[str, Any]] = {  # runs saved on four processes and gone on with on fewer
    "sub_centers": {"margin.name": "adaface", "softmax.sub_centers": 2, "optim.ema": 0.9},
    "bias_adamw": {"margin.name": "softmax", "margin.options": {"bias": True}, "optim.name": "adamw"},
    "binary": {"margin.name": "sphereface2", "margin.options": {}},
}


def configure(people: Path, **changes: Any) -> Config:
    """A tiny run without batch statistics. changes: such as {"optim.ema": 0.9}."""
    config = Config()
    settings = {
        "data.train": str(people), "data.batch_size": BATCH, "data.cache": True, "data.workers": 1,
        "model.num_features": 16, "model.options": {"width": 4}, "train.epochs": 1e3, "train.freeze_norms": True,
        "trainer.accelerator": "cpu", "trainer.timeout": 60.0, "optim.lr": 0.002, **changes,
    }  # fmt: skip
    for name, value in settings.items():
        group, _, key = name.partition(".")
        config = replace(config, **{group: replace(getattr(config, group), **{key: value})})
    return config


def processes(size: int, target: Any, *args: Any) -> list[BaseProcess]:
    """`size` processes, started, that will find each other: target(rank, *args)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = [CONTEXT.Process(target=_member, args=(rank, size, port, target, args)) for rank in range(size)]
    for process in group:
        process.start()
    return group


def join(group: list[BaseProcess], seconds: float = 400) -> list[int | None]:
    """Their exit codes; whoever has not ended by then is killed and has None."""
    for process in group:
        process.join(seconds)
    codes = [process.exitcode for process in group]
    for process in group:
        process.kill()
    return codes


def _member(rank: int, size: int, port: int, target: Any, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if size > 1:
        environment = {
            "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
        }  # fmt: skip
        os.environ.update({name: str(value) for name, value in environment.items()})
    target(rank, *args)


def command(rank: int, log: Path, words: list[str], environment: dict[str, str] | None = None) -> None:
    """`marginface` with these words, as a process of its own; what it prints goes to log.0, log.1 ..."""
    os.environ.update(environment or {})
    with Path(f"{log}.{rank}").open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["marginface", *words]
    cli.main(words)


def curves(rank: int, people: Path, folder: Path, size: int) -> None:
    """Losses of every margin with state; runs saved or gone on with; benchmarks; a record that cannot be read."""
    fabric = launch(configure(people).trainer)
    found: dict[str, Any] = {"size": fabric.world_size}
    console = Console(quiet=True)
    for name, options in STATEFUL.items() if size != 3 else ():
        trainer = Trainer(configure(people, **{"margin.name": name, "margin.options": options}), fabric, console)
        found[name] = torch.tensor(steps(trainer, STEPS))
    for name, changes in SAVED.items():
        trainer, run = Trainer(configure(people, **changes), fabric, console), Run(folder / name)
        if size == 4:
            steps(trainer, SAVED_AT)
            trainer.checkpoint(run)
        else:
            saved = open_newest(run, print)
            assert saved
            trainer.resume(*saved)
        found[f"saved-{name}"] = torch.tensor(steps(trainer, RESUMED_TO - SAVED_AT))
        found[f"weights-{name}"] = {key: value.clone() for key, value in trainer.embedder.backbone.state_dict().items()}
    trainer = Trainer(configure(people, **{"data.val": [str(people)]}), fabric, console)
    images = trainer.benchmarks[0].images
    alone = both_passes(trainer.model, images.chunks(112), flip=True)
    assert np.array_equal(np.concatenate([part for part, _ in alone]), embed_images(trainer.model, images).original)
    broken(people, folder / "broken", trainer)
    if rank == 0:
        torch.save(found, folder / f"{size}.pt")


def steps(trainer: Trainer, number: int) -> list[float]:
    batches = trainer.loader.start(trainer.step)
    found = [float(trainer.train_step(next(batches), Run(Path()))) for _ in range(number)]
    batches.close()
    return found


def broken(people: Path, damaged: Path, trainer: Trainer) -> None:
    """Every process brings as many rows as before, though one record of them cannot be read."""
    loader.UNREADABLE_LIMIT = 0.5
    trainer = Trainer(configure(damaged, **{"data.cache": False}), trainer.fabric, trainer.console)
    batches, unreadable = trainer.loader.start(0), 0
    for _ in range(trainer.steps_per_epoch):
        batch = trainer._next(batches)
        trainer.train_step(batch, Run(Path()))
        unreadable += trainer.news.unreadable
    batches.close()
    assert unreadable == 1


def limited(rank: int, log: Path, words: list[str], largest: int) -> None:
    """As `command`, on a disk that takes no file of more than `largest` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    command(rank, log, words)


def soak(rank: int, people: Path, folder: Path, steps: int) -> None:
    """Trains, saves and evaluates; rows of (step, bytes in memory, open files) of this process, every 100 steps."""
    config = configure(people, **{"data.val": [str(people)], "margin.name": "adaface", "margin.options": {}})
    trainer = Trainer(config, launch(config.trainer), Console(quiet=True))
    batches, run, rows = trainer.loader.start(0), Run(folder / "soak"), []
    while trainer.step < steps:
        trainer.train_step(next(batches), run)
        if trainer.step % 50 == 0:
            trainer.checkpoint(run)
            trainer.evaluate(run)
        if trainer.step % 100 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            rows.append((trainer.step, pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path("/proc/self/fd").iterdir()))))
    batches.close()
    np.save(folder / f"soak-{rank}.npy", rows)
