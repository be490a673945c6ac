"""The training loop: one batch through backbone, margin softmax and optimiser, again and again. For the CLI."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from marginface.backbones.preprocess import normalise
from marginface.embedder import Embedder, Preprocessing
from marginface.errors import InputError, Stopped
from marginface.evaluate import measure, open_benchmark
from marginface.loading.loader import Batch, Loader
from marginface.margins import Margin, create_margin, margin_parameters
from marginface.margins.binary import BinaryMargin
from marginface.readers import open_reader
from marginface.softmax import MarginSoftmax
from marginface.training.checkpoint import load_checkpoint, restore, save_checkpoint
from marginface.training.config import Config
from marginface.training.finetune import ClassMeans, Frozen, start_head
from marginface.training.mixing import MixedLoader
from marginface.training.monitor import Monitor
from marginface.training.optim import WeightAverage, create_optimizer, learning_rate
from marginface.training.run import Run
from marginface.training.signals import stop_flag


class Trainer:
    """All that a run holds in memory. Everything random is a function of (seed, step), so that state is small."""

    def __init__(self, config: Config, fabric: Fabric, console: Console, start: Embedder | None = None) -> None:
        """start: what fine-tuning begins with; None for random weights."""
        self.config, self.fabric, self.console = config, fabric, console
        self.loader = self._loader()
        reader = self.loader.reader
        self.benchmarks = [open_benchmark(spec, config.data.resize) for spec in config.data.val]
        torch.manual_seed(config.seed)
        self.embedder = start or Embedder.create(config.model, Preprocessing(size=config.data.size))
        margin = self._margin(reader.num_classes)
        group = torch.distributed.group.WORLD if fabric.world_size > 1 else None
        options = {**asdict(config.softmax), "seed": config.seed, "process_group": group}
        head = MarginSoftmax(config.model.num_features, reader.num_classes, margin, **options)
        self.head = head.to(fabric.device)
        backbone = self.embedder.backbone.to(fabric.device)
        backbone.to(memory_format=torch.channels_last)
        self.frozen = Frozen(backbone, config.train.freeze, config.train.freeze_norms)
        optimizer = create_optimizer(backbone, head, config.optim)
        if config.softmax.sample_rate < 1:
            head.update_drawn(optimizer)
        self.average = WeightAverage(backbone, config.optim.ema) if config.optim.ema else None
        # compiled for training only: evaluation would pay for a second compilation
        trained = cast(nn.Module, torch.compile(backbone)) if config.trainer.compile else backbone
        self.backbone, self.optimizer = fabric.setup(trained, optimizer)
        self.step, self.best, self.since_best = 0, -math.inf, 0
        self.steps_per_epoch = self.loader.batches.per_epoch
        self.total_steps = math.ceil(config.train.epochs * self.steps_per_epoch)

    def _loader(self) -> Loader | MixedLoader:
        config, ranks = self.config, (self.fabric.global_rank, self.fabric.world_size)
        reader = open_reader(config.data.train)
        if config.old.train:
            return MixedLoader(reader, config.data, config.old, config.seed, *ranks)
        return Loader(reader, config.data, config.seed, *ranks)

    def _margin(self, num_classes: int) -> Margin | BinaryMargin:
        """The configured margin; what some of them must know of the run is filled in."""
        name, options = self.config.margin.name, self.config.margin.options
        known = {"num_classes": num_classes, "seed": self.config.seed}
        given = {key: value for key, value in known.items() if key in margin_parameters(name)}
        return create_margin(name, **{**given, **options})

    @property
    def model(self) -> Embedder:
        """What is evaluated and exported: the averaged weights where there are any."""
        if self.average is None:
            return self.embedder
        return Embedder(self.average.module, self.embedder.config, self.embedder.preprocessing)

    @property
    def description(self) -> str:
        """The run in one line."""
        reader, millions = (
            self.loader.reader,
            sum(p.numel() for p in self.embedder.backbone.parameters()) / 1e6,
        )
        return (
            f"{len(reader):,} images of {reader.num_classes:,} people, {self.config.model.backbone} "
            f"({millions:.2f} M parameters), {self.config.margin.name}, {self.total_steps:,} steps on "
            f"{self.fabric.world_size} x {self.fabric.device.type}"
        )

    def start_from_faces(self) -> None:
        """Class weights from the people's faces as the network sees them before it is trained any further."""
        self.console.print(f"class means of {self.loader.reader.num_classes:,} people", highlight=False)
        with self.fabric.autocast():
            means = ClassMeans(self.embedder, self.loader, self.fabric.global_rank, self.fabric.world_size)
        means.sums = cast(Tensor, self.fabric.all_reduce(means.sums, reduce_op="sum"))
        means.moments = cast(Tensor, self.fabric.all_reduce(means.moments, reduce_op="sum"))
        start_head(self.head, means)

    @property
    def exhausted(self) -> bool:
        """Whether `patience` evaluations in a row brought nothing better."""
        return 0 < self.config.train.patience <= self.since_best

    def fit(self, run: Run) -> None:
        """Runs the remaining steps. Raises Stopped on a signal, after a checkpoint; InputError on bad data."""
        train, names = self.config.train, [benchmark.name for benchmark in self.benchmarks]
        monitor = Monitor(run.folder, self.total_steps, self.step, names, self.console, self.fabric.is_global_zero)
        batches = self.loader.start(self.step)
        with monitor, stop_flag() as stop:
            if self.config.init_from and self.step == 0:
                monitor.evaluated(0, self.evaluate(run))
            while self.step < self.total_steps and not self.exhausted:
                asked = time.perf_counter()
                batch = next(batches)
                monitor.waited(time.perf_counter() - asked)
                loss = self.train_step(batch, run)
                monitor.advance(self.step, len(batch.labels) * self.fabric.world_size)
                if self.step % train.log_every == 0 or self.step == self.total_steps:
                    monitor.log(self.step, self._numbers(loss))
                if train.eval_every and self.step % train.eval_every == 0 and self.step < self.total_steps:
                    monitor.evaluated(self.step, self.evaluate(run))
                if train.checkpoint_every and self.step % train.checkpoint_every == 0:
                    self.checkpoint(run)
                if stop.number:
                    self.checkpoint(run)
                    raise Stopped(stop.number, f"stopped after step {self.step} of {self.total_steps}")
            batches.close()
            if self.exhausted:
                self.console.print(f"step {self.step}: {train.patience} evaluations without a better one; done")
            else:
                monitor.evaluated(self.step, self.evaluate(run))
            self.checkpoint(run)

    def train_step(self, batch: Batch, run: Run) -> Tensor:
        """One update of the weights; returns the loss. Raises InputError when it is not finite."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        lr, strength = self._schedule()
        self.head.margin.strength = strength
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_share", 1.0)
        self.backbone.train()
        self.frozen.hold()
        self.head.train()
        images, labels = (self.fabric.to_device(torch.from_numpy(x)) for x in (batch.images, batch.labels))
        loss = self._forward_backward(images, labels)
        if not math.isfinite(loss):
            self._not_finite(batch, run)
        if self.config.optim.clip_norm:
            # not fabric.clip_gradients: it counts the class weights in, of which every process has others
            self.fabric.strategy.precision.unscale_gradients(self.optimizer.optimizer)
            nn.utils.clip_grad_norm_(self.embedder.backbone.parameters(), self.config.optim.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.embedder.backbone)
        self.step += 1
        return loss

    def _forward_backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of the batch, its gradients added part by part where `accumulate` asks for it."""
        parts = self.config.train.accumulate
        constants = self.embedder.preprocessing
        losses = []
        for part, (x, y) in enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True)):
            with self.fabric.no_backward_sync(self.backbone, enabled=part < parts - 1):
                loss = self.head(self.backbone(normalise(x, constants.mean, constants.std)), y) * (len(y) / len(labels))
                self.fabric.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _schedule(self) -> tuple[float, float]:
        """(learning rate, share of the margin) of this step."""
        config, epoch = self.config, self.step / self.steps_per_epoch
        lr = learning_rate(config.optim, epoch, config.train.epochs)
        if config.optim.scale_lr:
            lr *= config.data.batch_size / 512
        ramp = config.margin.warmup_epochs
        return lr, min(epoch / ramp, 1.0) if ramp else 1.0

    def _not_finite(self, batch: Batch, run: Run) -> None:
        """Stops the run: weights have not moved in this step, but running statistics may hold its numbers."""
        keys = ", ".join(self.loader.key(int(index)) for index in batch.indices[:8])
        tensors = [*self.embedder.backbone.state_dict().values(), *self.head.state_dict().values()]
        saved = "the last checkpoint stands as it was"
        if all(torch.isfinite(tensor).all() for tensor in tensors):
            self.checkpoint(run)
            saved = f"the state before this step is in {self._last(run)}"
        raise InputError(
            f"the loss is not finite at step {self.step + 1}; {saved}; the batch began with {keys}; look at these "
            f"images, or lower --optim.lr, set --optim.clip_norm 5, or raise --optim.warmup_epochs and "
            f"--margin.warmup_epochs"
        )

    def _numbers(self, loss: Tensor) -> dict[str, float]:
        return {
            "epoch": self.step / self.steps_per_epoch,
            "loss": float(loss),
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "target_cosine": float(self.head.mean_cosine),
            "norm": float(self.head.mean_norm),
        }

    def evaluate(self, run: Run) -> dict[str, float]:
        """Accuracy on each benchmark; the model stays in checkpoints/best when their mean is the best so far."""
        scores = {}
        if self.fabric.is_global_zero:
            scores = {b.name: measure(b, self.model, replicates=0).accuracy.mean for b in self.benchmarks}
            mean = sum(scores.values()) / len(scores) if scores else -math.inf
            self.since_best += 1
            if mean > self.best:
                self.best, self.since_best = mean, 0
                self.model.save(run.best)
            if self.config.train.keep_models:
                self.model.save(run.model_of(self.step))
        self.best, self.since_best = self.fabric.broadcast((self.best, self.since_best))
        return scores

    def checkpoint(self, run: Run) -> None:
        """Saves all that is needed to go on exactly."""
        save_checkpoint(self._last(run), self._state())

    def resume(self, run: Run) -> None:
        """Takes up where `checkpoint` saved, with as many processes. InputError if another architecture was saved."""
        path = self._last(run)
        state = load_checkpoint(path)
        steps = cast(Tensor, self.fabric.all_gather(torch.tensor(state["step"]))).flatten().tolist()
        if len(set(steps)) > 1:
            raise InputError(f"{run.folder}: the processes saved at different steps, {steps}, as one died; start anew")
        restore(self.embedder.backbone, state["backbone"], "backbone", path)
        restore(self.head, state["head"], "head", path)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            restore(self.average.module, state["average"], "weight average", path)
            self.average.updates = state["average_updates"]
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.best, self.since_best = state["step"], state["best"], state.get("since_best", 0)

    def plain_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole training set in its order, as the network takes it, without random changes."""
        for indices in np.array_split(np.arange(len(self.loader.reader)), math.ceil(len(self.loader.reader) / 64)):
            images, labels = self.loader.plain(indices)
            x = self.fabric.to_device(torch.from_numpy(images))
            constants = self.embedder.preprocessing
            yield normalise(x, constants.mean, constants.std), torch.from_numpy(labels)

    def _last(self, run: Run) -> Path:
        return run.last(self.fabric.global_rank, self.fabric.world_size)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "best": self.best,
            "since_best": self.since_best,
            "backbone": self.embedder.backbone.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "average_updates": self.average.updates if self.average else 0,
            "precision": self.fabric.strategy.precision.state_dict(),
        }
