"""From a configuration to a finished run: processes, folder, loop, and what it leaves. Called by the CLI."""

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from rich.console import Console

from marginface.embedder import Embedder
from marginface.errors import InputError, PeerLost, Stopped
from marginface.files import check_folder
from marginface.loading.loader import check_shares
from marginface.processes import by_first, each, meet, one_speaks, peers_watched, together
from marginface.readers.image_walk import describe_left_out
from marginface.terminal import print_line
from marginface.training.build import describe_alignment
from marginface.training.checkpoint import Progress, check_network, open_newest
from marginface.training.config import Config, TrainerConfig
from marginface.training.finetune import load_start
from marginface.training.finish import finish
from marginface.training.loop import Trainer
from marginface.training.memory import keep_freed_memory
from marginface.training.run import Run, create_run, locked, open_run
from marginface.training.samples import write_samples
from marginface.training.sharding import ShardedStrategy
from marginface.weights.opening import describe_import
from marginface.weights.state import SavedState


def start_training(config: Config, *, resume: str, numbered: bool, command: str, console: Console) -> None:
    """Trains, or goes on with a run, and leaves model, metrics and report behind.

    resume: the folder of a run, or "auto": the run of this name if there is one. numbered: take the first free of
    name, name-2, ... instead of refusing a name that is taken.
    Raises InputError for anything the user can mend, Stopped after a signal, when a checkpoint is written, and
    PeerLost when another process is gone.
    """
    # a job that is started again must find its run by its name
    numbered = numbered and resume != "auto" and not int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    fabric = launch(config.trainer)
    console.quiet = not fabric.is_global_zero
    if fabric.device.type == "cpu":
        keep_freed_memory()
    with one_speaks(0 if _is_child(fabric) else None), peers_watched(config.trainer.timeout):
        _train(config, fabric, resume, numbered, command, console)


def _train(config: Config, fabric: Fabric, resume: str, numbered: bool, command: str, console: Console) -> None:
    together(
        lambda: check_shares(config.data, fabric.world_size)
    )  # now: a large checkpoint or data set takes minutes to look at
    again = max(together(_restarts)) > 0  # the nodes of torchrun count each for itself
    run = by_first(lambda: _existing(config, resume, again))
    start = None
    if config.init_from:
        source = run.start if run else config.init_from
        start = each(lambda: load_start(source))
        config = replace(config, model=start.config, data=replace(config.data, size=start.preprocessing.size))
        if understood := describe_import(source, start):
            print_line(understood, console)
    with ExitStack() as held:
        if run:
            existing = run
            by_first(lambda: held.enter_context(locked(existing)))
        saved = open_newest(run, lambda sentence: print_line(sentence, console)) if run else None
        config = each(lambda: _checked(config, run, saved, resume))
        trainer = Trainer(
            config, fabric, console, start, resumed=saved is not None
        )  # refuses what it must before a folder is made
        if run is None:
            run = created = by_first(lambda: _new_run(config, trainer, start, numbered))
            by_first(lambda: held.enter_context(locked(created)))
        if saved:
            trainer.resume(*saved)
        elif config.init_from and config.init_head == "class_means":
            trainer.start_from_faces()
        if sentence := describe_left_out(config.data.train, trainer.loader.reader):
            print_line(sentence, console)
        for sentence in describe_alignment(config, trainer.embedder.preprocessing, trainer.benchmarks):
            print_line(sentence, console)
        print_line(f"{run.folder}  {trainer.description}", console)
        try:
            with peers_watched(config.trainer.timeout):
                _fit(trainer, run)
                with _ended_by_signals():
                    finish(trainer, run, command, console)
        except PeerLost as lost:
            raise PeerLost(f"{lost}; {_go_on(run)}") from lost
        except Stopped as stopped:
            raise Stopped(stopped.number, f"{stopped}; {_go_on(run)}") from None


def launch(config: TrainerConfig) -> Fabric:
    """The processes of the run, through Lightning Fabric. Raises InputError for a device that is not there."""
    devices, nodes = config.devices, config.num_nodes
    if torch.distributed.is_torchelastic_launched():  # torchrun: it knows, and has started them
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    several = devices * nodes > 1
    strategy = ShardedStrategy if config.shard_backbone else DDPStrategy
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=config.precision,
            strategy=strategy(timeout=timedelta(seconds=config.timeout)) if several else "auto",
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"trainer.accelerator {config.accelerator} with {devices} devices is not to be had here: {error}"
        ) from error
    if several and _restarts():  # else Fabric does it
        meet("nccl" if fabric.device.type == "cuda" else "gloo", config.timeout)
    fabric.launch()
    return fabric


def _restarts() -> int:
    """How often torchrun has started this process again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _is_child(fabric: Fabric) -> bool:
    """Whether Fabric started this process: it kills the first one when a child reports anything but 0."""
    return not fabric.is_global_zero and not torch.distributed.is_torchelastic_launched()


def _existing(config: Config, resume: str, restarted: bool) -> Run | None:
    """The run to go on with. A job that torchrun or a scheduler starts again goes on with its own."""
    if resume == "auto" or (restarted and not resume):
        run = Run(Path(config.output) / (config.name or "run"))
        if not run.config.is_file():
            return None
    elif resume:
        run = open_run(resume)
    else:
        return None
    for folder in (run.model, run.best):  # which the end of the run replaces
        check_folder(folder, overwrite=True)
    return run


def _checked(config: Config, run: Run | None, saved: tuple[SavedState, Progress] | None, resume: str) -> Config:
    """The configuration, once it fits the checkpoint, without timm's download: weights come from there.

    Raises InputError where only the run's folder asks for the download, and there is no checkpoint.
    """
    if run and saved:
        check_network(config.model, config.data.size, saved[0], run)
        options = {name: value for name, value in config.model.options.items() if name != "pretrained"}
        return replace(config, model=replace(config.model, options=options))
    if run and resume not in ("", "auto") and config.model.options.get("pretrained"):
        raise InputError(
            f"{run.config} begins with timm's published weights, which are not fetched on a folder's word, and the "
            f"run has no checkpoint: begin again with --config {shlex.quote(str(run.config))} and another --name"
        )
    return config


def _new_run(config: Config, trainer: Trainer, start: Embedder | None, numbered: bool) -> Run:
    """Makes the folder and describes the run in it."""

    def fill(run: Run) -> None:
        text = yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
        run.config.write_text(text, encoding="utf-8")
        write_samples(trainer.loader, run.samples)
        if start:
            network = trainer.whole.before if trainer.whole else trainer.embedder.backbone
            Embedder(network, config.model, start.preprocessing, start.notes).save(run.start)

    return create_run(config.output, config.name or "run", numbered, fill)


def _fit(trainer: Trainer, run: Run) -> None:
    try:
        trainer.fit(run)
    except InputError as error:
        error.args = (f"{error}; {_go_on(run)}",)
        raise


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within the last evaluation, what ends the command is Stopped, so that it says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Stopped(signal.SIGINT, "stopped in the last evaluation") from error
    except SystemExit as error:  # as `cli` answers SIGTERM and SIGHUP
        if not isinstance(error.code, int) or error.code <= 128:
            raise
        raise Stopped(error.code - 128, "stopped in the last evaluation") from error


def _go_on(run: Run) -> str:
    return f"go on with: marginface train --resume {shlex.quote(str(run.folder))}"
