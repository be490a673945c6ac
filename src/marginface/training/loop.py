"""The training loop: one batch through backbone, margin softmax and optimiser, again and again. For the CLI."""

import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from marginface.backbones import Backbone
from marginface.backbones.preprocess import normalise
from marginface.backbones.recomputing import recompute_blocks
from marginface.embedder import Embedder
from marginface.errors import InputError, Stopped
from marginface.evaluate import Benchmark, open_benchmark
from marginface.evaluate.embeddings import embed_images
from marginface.evaluate.kinds import check_names
from marginface.evaluate.measure import figure_during_training, main_figure
from marginface.loading.loader import Batch
from marginface.margins import Margin
from marginface.processes import alike, by_first, each, together
from marginface.terminal import print_line
from marginface.training.build import (
    check_image_size,
    create_head,
    create_loader,
    filled,
    preprocessing_of,
    with_shared_norms,
)
from marginface.training.checkpoint import Learner, Progress
from marginface.training.config import Config
from marginface.training.finetune import ClassMeans, Frozen, start_head, take_published_head
from marginface.training.measures import head_numbers, to_host
from marginface.training.monitor import Figure, Monitor
from marginface.training.optim import WeightAverage, create_optimizer, gradient_norm, learning_rate, step_if_finite
from marginface.training.pulse import News, Pulse
from marginface.training.refit import check_refit
from marginface.training.run import Run
from marginface.training.saving import Saver
from marginface.training.sharding import Whole, split
from marginface.training.signals import StopFlag, stop_flag
from marginface.weights.parts import own
from marginface.weights.state import SavedState


class Trainer:
    """All that a run holds in memory. Everything random is a function of (seed, step), so that state is small."""

    def __init__(
        self,
        config: Config,
        fabric: Fabric,
        console: Console,
        start: Embedder | None = None,
        resumed: bool = False,
    ) -> None:
        """start: what fine-tuning begins with; None for random weights. resumed: skip benchmarks that fail."""
        self.config, self.fabric, self.console, self.resumed = config, fabric, console, resumed
        together(lambda: self._create(start))  # what cannot be had is said once, and no process waits for another
        self.failures: list[str] = []
        self.benchmarks: list[Benchmark] = []
        self.figures: dict[str, Figure] = {}
        for spec in config.data.val:
            self._open_benchmark(spec)
        backbone = self.embedder.backbone
        self.average = WeightAverage(backbone, config.optim.ema) if config.optim.ema else None
        self.whole: Whole | None = None
        if config.trainer.shard_backbone and fabric.world_size > 1:
            self.whole = Whole(backbone, fabric.device)
            for network in (backbone, self.average.module) if self.average else (backbone,):
                split(cast(Backbone, network), fabric.device)
        optimizer = create_optimizer(backbone, self.head, config.optim)
        if config.softmax.sample_rate < 1:
            self.head.update_drawn(optimizer)
        self.learner = Learner(backbone, self.head, optimizer, self.average)
        # compiled for training only: evaluation would pay for a second compilation
        trained = cast(nn.Module, torch.compile(backbone)) if config.trainer.compile else backbone
        self.backbone, self.optimizer = fabric.setup(trained, optimizer)
        self.step, self.best, self.since_best = 0, -math.inf, 0
        self.ahead = 0  # steps that another batch size would have taken up to here, less those taken
        self.saved, self.skipped, self.unreadable = -1, 0, 0
        self.saver = Saver(config.train.keep_checkpoints, config.train.async_checkpoints, config.trainer.timeout)
        self.pulse, self.stop = Pulse(fabric.device), StopFlag()
        self.gradient_norm = torch.zeros((), device=fabric.device)
        self.batch = self.last_batch = Batch(*(np.empty(0, np.int64),) * 3, {})
        self.news = News(0.0, 0.0, 0, 0, 0, 0)
        self.no_batch: Exception | None = None
        self.sound = True  # whether weights and step number belong together, and are finite

    def _create(self, start: Embedder | None) -> None:
        config, device = self.config, self.fabric.device
        ranks = (self.fabric.global_rank, self.fabric.world_size)
        self.loader = create_loader(config, *ranks)
        reader = self.loader.reader
        self.steps_per_epoch = self.loader.batches.per_epoch
        torch.manual_seed(config.seed)
        self.embedder = start or Embedder.create(config.model, preprocessing_of(config.data))
        check_image_size(cast(Backbone, self.embedder.backbone), config)
        if config.train.refit:
            check_refit(self.embedder.backbone, reader.labels)
        self.head = create_head(config, reader, self.fabric.world_size).to(device)
        # a refitted embedding layer has lengths of another kind than the margin gave them
        tell = isinstance(self.head.margin, Margin) and self.head.margin.norms_tell_quality and not config.train.refit
        preprocessing = replace(self.embedder.preprocessing, quality="norm" if tell else None)
        self.embedder = Embedder(self.embedder.backbone, self.embedder.config, preprocessing, self.embedder.notes)
        backbone = self.embedder.backbone.to(device)
        backbone.to(memory_format=torch.channels_last)
        if config.trainer.sync_batch_norm:
            self.embedder.backbone = backbone = with_shared_norms(backbone, device)
        if config.train.activation_checkpointing:
            recompute_blocks(cast(Backbone, backbone))
        self.frozen = Frozen(cast(Backbone, backbone), config.train.freeze, config.train.freeze_norms)

    def _open_benchmark(self, spec: str) -> None:
        """One of data.val, every image of which can be read; else the run does not start, or goes on without it."""
        data = self.config.data
        with self.survived(f"data.val {spec}", always=False):
            benchmark = each(lambda: open_benchmark(spec, data.resize, data.allow_outside))
            check_names([*self.benchmarks, benchmark])
            name = figure_during_training(benchmark, self.embedder.preprocessing.size)
            self.figures[benchmark.name] = Figure(benchmark.name, name)
            self.benchmarks.append(benchmark)

    @contextmanager
    def survived(self, what: str, *, always: bool, alone: bool = False) -> Iterator[None]:
        """Within, an error that all processes share is printed, kept in `failures`, and the run goes on without `what`.

        Without `always` only a run that is resumed does. alone: the other processes do not take part.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, Stopped) or not (alone or self._is_common(error)) or not (always or self.resumed):
                raise
            kind = "" if isinstance(error, InputError | OSError) else f"{type(error).__name__}: "
            self.failures.append(f"{what} is left out: {kind}{error}")
            print_line(self.failures[-1], self.console)

    def _is_common(self, error: Exception) -> bool:
        """Whether all processes raise it."""
        return self.fabric.world_size == 1 or (isinstance(error, InputError) and error.elsewhere is not None)

    @property
    def model(self) -> Embedder:
        """What is evaluated and exported: the averaged weights where there are any. All processes must ask for it."""
        if self.average is None and self.whole is None:
            return self.embedder
        network = self.average.module if self.average else self.embedder.backbone
        network = self.whole(network) if self.whole else network
        return Embedder(network, self.embedder.config, self.embedder.preprocessing)

    @property
    def position(self) -> int:
        """The number of this step, had the whole run had this batch size: what order and schedule are counted by."""
        return self.step + self.ahead

    @property
    def total_steps(self) -> int:
        return max(math.ceil(self.config.train.epochs * self.steps_per_epoch) - self.ahead, self.step)

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
        print_line(f"class means of {self.loader.reader.num_classes:,} people", self.console)
        with self.fabric.autocast():
            means = ClassMeans(self.model, self.loader, self.fabric.global_rank, self.fabric.world_size)
        means.sums = cast(Tensor, self.fabric.all_reduce(means.sums, reduce_op="sum"))
        means.moments = cast(Tensor, self.fabric.all_reduce(means.moments, reduce_op="sum"))
        if take_published_head(self.head, self.config.init_from, means):
            print_line(f"class weights come with {self.config.init_from}", self.console)
        else:
            start_head(self.head, means)

    @property
    def exhausted(self) -> bool:
        """Whether `patience` evaluations in a row brought nothing better."""
        return 0 < self.config.train.patience <= self.since_best

    def fit(self, run: Run) -> None:
        """Runs the remaining steps. Raises Stopped on a signal and InputError on bad data, after a checkpoint.

        Whatever else ends the run does so after a checkpoint too, where all processes are between two steps.
        """
        monitor = Monitor(
            run,
            self.config,
            self.head,
            total=self.total_steps,
            start=self.step,
            figures=list(self.figures.values()),
            console=self.console,
            active=self.fabric.is_global_zero,
        )
        with monitor, stop_flag() as self.stop, self.saver:
            try:
                self._steps(run, monitor)
            except Exception as error:
                self._rescue(run, error)
                raise

    def _steps(self, run: Run, monitor: Monitor) -> None:
        train = self.config.train
        if self.config.init_from and self.step == 0:
            monitor.evaluated(0, self.evaluate(run))
        with closing(self.loader.start(self.position)) as batches:
            while self.step < self.total_steps and not self.exhausted:
                asked = time.perf_counter()
                batch = self._next(batches)
                monitor.waited(time.perf_counter() - asked)
                loss = self.train_step(batch, run)
                monitor.advance(self.step, len(batch.labels) * self.fabric.world_size)
                if self.step % train.log_every == 0 or self.step == self.total_steps:
                    monitor.log(self.step, self._numbers(loss))
                if train.eval_every and self.step % train.eval_every == 0 and self.step < self.total_steps:
                    monitor.evaluated(self.step, self.evaluate(run))
                if train.checkpoint_every and self.step % train.checkpoint_every == 0 and self.step < self.total_steps:
                    self.checkpoint(run, wait=False)
                self._heed(run)
        self._stop_if(run, max(together(lambda: self.stop.number)))
        if self.exhausted:
            print_line(f"step {self.step}: {train.patience} evaluations without a better one; done", self.console)
        else:
            self.checkpoint(run)  # whatever comes of the evaluation
            with self.survived("the last evaluation", always=True):
                monitor.evaluated(self.step, self.evaluate(run))
                if self.benchmarks:
                    self.saved = -1  # the best one so far is part of the state
        self.checkpoint(run)
        self._stop_if(run, max(together(lambda: self.stop.number)))

    def _rescue(self, run: Run, error: Exception) -> None:
        """Saves the state where `error` ends the run between two steps, on all processes."""
        if not self._is_common(error) or not self.sound or isinstance(error, Stopped):
            return
        try:
            self.checkpoint(run)
        except Exception as second:  # the first one is the reason
            if str(second) != str(error):
                print_line(f"the state of step {self.step} could not be saved: {second}", Console(stderr=True))

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """The batch of this step, as large on every process: the head's sums need equally many rows of each."""
        try:
            batch = next(batches)
            for reason in batch.unreadable.values():
                print_line(f"marginface: step {self.step + 1}: left out: {reason}", Console(stderr=True))
            if batch.unreadable and self.fabric.world_size > 1:
                return filled(batch, self.loader, self.position // self.steps_per_epoch)
            return batch
        except Exception as error:
            if self.fabric.world_size == 1:
                raise
            # the others are in the next step already: they learn of it there, and save with this one
            sentence = f"the images of step {self.step + 1} could not be loaded: {error!r}"
            self.no_batch = error if isinstance(error, InputError | OSError) else InputError(sentence)
            return self.batch if len(self.batch.labels) else self._blank()

    def _blank(self) -> Batch:
        share, side = self.config.data.batch_size // self.fabric.world_size, self.config.data.size
        nothing = np.zeros(share, np.int64)
        return Batch(np.zeros((share, side, side, 3), np.uint8), nothing, nothing, {})

    def train_step(self, batch: Batch, run: Run) -> Tensor:
        """One update of the weights; returns the loss.

        Raises InputError where that is not finite, and where a process has no batch.
        """
        torch.manual_seed(self.config.seed * 1_000_003 + self.step + (self.fabric.global_rank << 40))
        lr, strength = self._schedule()
        self.head.margin.strength = strength
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_share", 1.0)
        self.backbone.train()
        self.frozen.hold()
        self.head.train()
        images, labels = (self.fabric.to_device(torch.from_numpy(x)) for x in (batch.images, batch.labels))
        self.batch = batch
        loss = self._forward_backward(images, labels)
        self.news = self.pulse.receive()
        if self.news.failed_loads:
            together(self._raise_no_batch)
        if not math.isfinite(self.news.loss):
            self._not_finite(batch, run)
        self.sound = False
        self._update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.embedder.backbone)
        self.step += 1
        self.sound = True
        return loss

    def _raise_no_batch(self) -> None:
        if self.no_batch is not None:
            raise self.no_batch

    def _forward_backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of the batch, its gradients added part by part where `accumulate` asks for it."""
        parts = self.config.train.accumulate
        constants = self.embedder.preprocessing
        losses = []
        for part, (x, y) in enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True)):
            with self.fabric.no_backward_sync(self.backbone, enabled=part < parts - 1):
                loss = self.head(self.backbone(normalise(x, constants.mean, constants.std)), y) * (len(y) / len(labels))
                losses.append(loss.detach())
                if part == parts - 1:
                    self._send(torch.stack(losses).sum())
                self.fabric.backward(loss)
        return torch.stack(losses).sum()

    def _send(self, loss: Tensor) -> None:
        unreadable, failed = len(self.batch.unreadable), self.no_batch is not None
        self.pulse.send(loss, self.gradient_norm, unreadable, self.saver.failed, failed, self.stop.number)

    def _update(self) -> None:
        """Moves the weights, unless the gradient is not finite; that is known, and said, a step later."""
        clip = self.config.optim.clip_norm
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)  # of 16-mixed, which looks after this itself
        if scaler and clip:
            scaler.unscale_(self.optimizer.optimizer)  # Fabric refuses to, where the optimiser is fused
        if clip or not scaler:
            # not fabric.clip_gradients: it counts the class weights in, of which every process has others
            norm = gradient_norm(self.embedder.backbone, clip)
        if scaler:
            self.optimizer.step()
            return
        self.gradient_norm = norm
        step_if_finite(self.optimizer, norm)

    def _heed(self, run: Run) -> None:
        """What became known in this step, on all processes alike: gradients not finite, signals, a full disk."""
        news = self.news
        if news.failed_saves:
            self.saver.wait()
        self.unreadable += news.unreadable
        if not math.isfinite(news.gradient_norm):
            self.skipped += 1
            sentence = (
                f"the gradient is not finite at step {self.step - 1}, left out ({self.skipped} so far); the batch "
                f"began with {self._keys(self.last_batch)}"
            )
            if self.skipped > self.config.train.skip_steps:
                raise alike(
                    InputError(
                        f"{sentence}; that is more than train.skip_steps, so the run stopped with its state saved: "
                        f"look at these images, or lower --optim.lr, set --optim.clip_norm 5, and go on with --resume"
                    )
                )
            print_line(sentence, self.console)
        self.last_batch = self.batch
        self._stop_if(run, news.stop)

    def _stop_if(self, run: Run, number: int) -> None:
        if number:
            self.checkpoint(run)
            raise Stopped(number, f"stopped after step {self.step} of {self.total_steps}")

    def _schedule(self) -> tuple[float, float]:
        """(learning rate, share of the margin) of this step."""
        config, epoch = self.config, self.position / self.steps_per_epoch
        # the first step of a warm-up has the rate of the second: with none at all it would teach nothing
        started = max(epoch, min(1 / self.steps_per_epoch, config.optim.warmup_epochs))
        lr = learning_rate(config.optim, started, config.train.epochs)
        if config.optim.scale_lr:
            lr *= config.data.batch_size / 512
        ramp = config.margin.warmup_epochs
        return lr, min(epoch / ramp, 1.0) if ramp else 1.0

    def _not_finite(self, batch: Batch, run: Run) -> None:
        """Stops the run: weights have not moved in this step, but running statistics may hold its numbers."""
        tensors = [own(value) for part in (self.embedder.backbone, self.head) for value in part.state_dict().values()]
        saved = "the last checkpoint stands as it was"
        self.sound = all(together(lambda: all(bool(torch.isfinite(tensor).all()) for tensor in tensors)))
        if self.sound:
            saved = f"the state before this step is in {run.state_of(self.step)}"
        sentence = (
            f"the loss is not finite at step {self.step + 1}; {saved}; the batch began with {self._keys(batch)}; look "
            f"at these images, or lower --optim.lr, set --optim.clip_norm 5, or raise --optim.warmup_epochs and "
            f"--margin.warmup_epochs"
        )
        raise alike(InputError(sentence))

    def _keys(self, batch: Batch) -> str:
        return ", ".join(self.loader.key(int(index)) for index in batch.indices[:8])

    def _numbers(self, loss: Tensor) -> dict[str, float]:
        return {
            "epoch": self.position / self.steps_per_epoch,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            **to_host({"loss": loss, "gradient_norm": self.gradient_norm, **head_numbers(self.head)}),
        }

    def evaluate(self, run: Run) -> dict[Figure, float]:
        """The figure of each benchmark; the model stays in checkpoints/best when their mean is the best so far.

        Every process embeds a share of the images; only the first one returns the figures. Where a benchmark is left
        out, the mean is another one, and tells nothing of the best.
        """
        self.learner.share_buffers()
        model = self.model
        found: dict[Figure, float] = {}
        for benchmark in self.benchmarks:
            with self.survived(benchmark.name, always=False):
                embeddings = embed_images(model, benchmark.images)
                found[self.figures[benchmark.name]] = main_figure(benchmark.score(embeddings, "model", 0))[1]
        better = False
        if len(found) == len(self.config.data.val):
            mean = sum(found.values()) / len(found) if found else -math.inf
            self.since_best += 1
            better = mean > self.best
            if better:
                self.best, self.since_best = mean, 0

        def keep() -> None:
            if better:
                model.save(run.best, overwrite=True)
            if self.config.train.keep_models:
                model.save(run.model_of(self.step), overwrite=True)

        by_first(keep)
        return found if self.fabric.is_global_zero else {}

    def checkpoint(self, run: Run, wait: bool = True) -> None:
        """Saves all that is needed to go on exactly, with any number of processes. wait: until the disk has it."""
        if self.saved != self.step:
            self.learner.share_buffers()
            progress = Progress(
                step=self.step,
                position=self.position,
                batch_size=self.loader.batches.batch_size,
                steps_per_epoch=self.steps_per_epoch,
                best=self.best if math.isfinite(self.best) else None,
                since_best=self.since_best,
                average_updates=self.average.updates if self.average else 0,
                precision=self.fabric.strategy.precision.state_dict(),
            )
            facts = asdict(progress) | {"model": self.embedder.description()}
            self.saver.save(run.state_of(self.step), self.learner.tensors(), facts)
            self.saved = self.step
        if wait:
            self.saver.wait()

    def resume(self, saved: SavedState, progress: Progress) -> None:
        """Continue from a checkpoint, of any number of processes. Raises InputError for one of another architecture."""
        self.learner.restore(saved)
        if self.average is not None:
            self.average.updates = progress.average_updates
        if progress.precision:
            self.fabric.strategy.precision.load_state_dict(progress.precision)
        self.step, self.since_best = progress.step, progress.since_best
        self.ahead = progress.position_for(self.loader.batches) - self.step
        if progress.batch_size != self.loader.batches.batch_size:
            epoch = self.position / self.steps_per_epoch
            print_line(f"another batch size than before: going on at epoch {epoch:.3f}, by images seen", self.console)
        self.best = -math.inf if progress.best is None else progress.best
        self.saved = self.step

    def plain_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole training set in its order, as the network takes it, without random changes."""
        for indices in np.array_split(np.arange(len(self.loader.reader)), math.ceil(len(self.loader.reader) / 64)):
            images, labels = self.loader.plain(indices)
            x = self.fabric.to_device(torch.from_numpy(images))
            constants = self.embedder.preprocessing
            yield normalise(x, constants.mean, constants.std), torch.from_numpy(labels)
