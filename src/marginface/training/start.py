"""From a configuration to a finished run: processes, folder, loop, and what it leaves. Called by the CLI."""

from dataclasses import asdict, replace
from pathlib import Path

import yaml
from lightning_fabric import Fabric
from rich.console import Console

from marginface.errors import InputError, Stopped
from marginface.files import replace_file
from marginface.training.config import Config, TrainerConfig
from marginface.training.finetune import load_start
from marginface.training.finish import finish
from marginface.training.loop import Trainer
from marginface.training.run import Run, create_run, open_run
from marginface.training.samples import write_samples


def start_training(config: Config, *, resume: str, numbered: bool, command: str, console: Console) -> None:
    """Trains, or goes on with the run in folder `resume`, and leaves model, metrics and report behind.

    numbered: take the first free of name, name-2, ... instead of refusing a name that is taken.
    Raises InputError for anything the user can mend, Stopped after a signal, when a checkpoint is written.
    """
    fabric = launch(config.trainer)
    console.quiet = not fabric.is_global_zero
    run = open_run(resume) if resume else None
    start = None
    if config.init_from:
        start = load_start(run.start if run else config.init_from)
        config = replace(config, model=start.config, data=replace(config.data, size=start.preprocessing.size))
    trainer = Trainer(config, fabric, console, start)  # refuses what it must before a folder is made
    if run is None:
        run = _new_run(config, fabric, trainer, numbered)
    else:
        trainer.resume(run)
    console.print(f"[bold]{run.folder}[/]  {trainer.description}", highlight=False)
    try:
        trainer.fit(run)
    except Stopped as stopped:
        raise Stopped(stopped.number, f"{stopped}; go on with: marginface train --resume {run.folder}") from None
    if fabric.is_global_zero:
        finish(trainer, run, command, console)


def launch(config: TrainerConfig) -> Fabric:
    """The processes of the run, through Lightning Fabric. Raises InputError for a device that is not there."""
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            precision=config.precision,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"trainer.accelerator {config.accelerator} with {config.devices} devices is not to be had here: {error}"
        ) from error
    fabric.launch()
    return fabric


def _new_run(config: Config, fabric: Fabric, trainer: Trainer, numbered: bool) -> Run:
    """The first process makes the folder and describes the run; the others are told where."""
    folder = ""
    if fabric.is_global_zero:
        run = create_run(config.output, config.name or "run", numbered)
        with replace_file(run.config) as temporary:
            temporary.write_text(yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True), "utf-8")
        write_samples(trainer.loader, run.samples)
        if config.init_from:
            trainer.embedder.save(run.start)
        folder = str(run.folder)
    if config.init_from and config.init_head == "class_means":
        trainer.start_from_faces()
    return Run(Path(fabric.broadcast(folder)))
