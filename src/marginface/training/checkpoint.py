"""What the state of a run consists of, for any number of processes: gathered to be saved, given back on resuming."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from marginface.backbones.proven import check_proven
from marginface.embedder import ModelConfig
from marginface.errors import InputError
from marginface.loading.sampler import Batches
from marginface.processes import alike, by_first, each, together
from marginface.softmax import MarginSoftmax
from marginface.tensor_file import check_finite
from marginface.training.optim import WeightAverage
from marginface.training.run import Run
from marginface.weights.parts import Part, as_part, own_rows
from marginface.weights.state import SavedState, list_states

CLASS_ROWS = ("weight", "bias", "momentum")  # of the head: a row a class, of which every process has some
OPTIMIZER_STATE = {  # per parameter that has moved
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}
LOSS_SCALE = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}  # of 16-mixed


@dataclass(frozen=True)
class Progress:
    """How far a run is, beside its tensors.

    position, batch_size, steps_per_epoch: in the order of images, see `Batches`; position is the step, unless the
    batch size has changed in between. best: highest mean accuracy so far, None before the first evaluation;
    since_best: evaluations since then; average_updates: of the weight average; precision: state of the loss scale, {}
    without one.
    """

    step: int
    position: int
    batch_size: int
    steps_per_epoch: int
    best: float | None = None
    since_best: int = 0
    average_updates: int = 0
    precision: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: SavedState) -> "Progress":
        """Raises InputError where the checkpoint's facts are of other types, or no counts and finite numbers."""
        try:
            found = cls(**{key: value for key, value in saved.facts.items() if key != "model"})
            interval = found.precision.get("growth_interval", 0)
            sizes = found.position, found.batch_size - 1, found.steps_per_epoch - 1
            counts = (found.step, found.since_best, found.average_updates, interval, *sizes)
            numbers = [*counts, *found.precision.values(), *(() if found.best is None else (found.best,))]
            sound = all(type(n) in (int, float) and math.isfinite(n) and abs(n) < 1 << 53 for n in numbers)
            scaled = not found.precision or found.precision.keys() == LOSS_SCALE
            if sound and scaled and all(type(n) is int and n >= 0 for n in counts):
                return found
        except (TypeError, AttributeError, OverflowError):
            pass
        raise InputError(f"{saved.folder} does not say where its run stands; delete it to go on from another")

    def position_for(self, batches: Batches) -> int:
        """The same place of the same epoch in `batches`; up to a batch of images is seen again where that falls within.

        An epoch of fewer images than were seen is over.
        """
        epoch, turn = divmod(self.position, self.steps_per_epoch)
        if (self.batch_size, self.steps_per_epoch) == (batches.batch_size, batches.per_epoch):
            return self.position
        return epoch * batches.per_epoch + min(turn * self.batch_size // batches.batch_size, batches.per_epoch)


def open_newest(run: Run, tell: Callable[[str], None]) -> tuple[SavedState, Progress] | None:
    """The newest whole checkpoint of a run; None where none was written yet. Called by every process.

    tell: given a sentence for each damaged one that is passed over. Raises InputError where all are damaged.
    """
    damaged = []
    for folder in by_first(lambda: list_states(run.checkpoints)):
        try:
            saved = SavedState.open(folder)
            return saved, Progress.of(saved)
        except InputError as error:
            damaged.append(str(error))
            tell(f"{error}; going on from the checkpoint before it")
    if damaged:
        sentence = f"{run.checkpoints} holds no checkpoint that is whole: {'; '.join(damaged)}"
        raise alike(InputError(f"{sentence}; delete them to start anew"))
    return None


def check_network(config: ModelConfig, size: int, saved: SavedState, run: Run) -> None:
    """Raise InputError unless the checkpoint holds the configured network, for images of size x size pixels.

    To be called before the network is built: the run may be a stranger's, and ask for one that takes all memory.
    """
    shapes = {name[9:]: shape for name, shape in saved.shapes.items() if name.startswith("backbone.")}
    options = {name: value for name, value in config.options.items() if name != "pretrained"}
    try:
        check_proven(config.backbone, config.num_features, options, (size, size), shapes, saved.folder)
    except InputError as error:
        raise InputError(f"{run.config} names another network than the checkpoint holds: {error}") from error


@dataclass(frozen=True)
class Learner:
    """Everything of a run that learns. average: None without one."""

    backbone: nn.Module
    head: MarginSoftmax
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None

    def tensors(self) -> dict[str, Tensor | Part]:
        """By name, such as backbone.trunk.1.weight or optimizer.head.weight:momentum_buffer; not copied."""
        return self._weights() | {
            f"optimizer.{name}:{key}": self._rows(name, value)
            for name, parameter in self._parameters().items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }

    def restore(self, saved: SavedState) -> None:
        """Takes over what `tensors` gave, whoever saved it. Raises InputError naming the first thing that differs."""
        weights = self._weights()
        together(lambda: _compare(saved, weights))
        states = each(lambda: self._states(saved))
        parts = {
            f"optimizer.{name}:{key}": self._rows(name, value)
            for name, values in states.items()
            for key, value in values.items()
        }
        saved.read(weights | parts)
        own = {name: as_part(value).rows for name, value in (weights | parts).items()}
        together(lambda: check_finite(own, saved.folder))
        numbers = {name: number for number, name in enumerate(self._in_groups())}
        described = self.optimizer.state_dict()
        described["state"] = {numbers[name]: values for name, values in states.items()}
        self.optimizer.load_state_dict(described)

    def share_buffers(self) -> None:
        """All processes take the first one's running statistics: each has seen other images."""
        if self.head.shards.size == 1:
            return
        averages = self.average.module.buffers() if self.average else ()
        for buffer in (*self.backbone.buffers(), *averages):
            torch.distributed.broadcast(buffer, 0)

    def _weights(self) -> dict[str, Tensor | Part]:
        modules = {"backbone": self.backbone, "head": self.head}
        if self.average is not None:
            modules["average"] = self.average.module
        found = {f"{what}.{name}": value for what, module in modules.items() for name, value in _state(module).items()}
        return {name: self._rows(name, value) for name, value in found.items()}

    def _rows(self, name: str, value: Tensor) -> Tensor | Part:
        """Marks what this process has of a table over all classes, or of a weight that is split."""
        head = self.head
        if name.removeprefix("head.") not in CLASS_ROWS or not name.startswith("head.") or not value.dim():
            return own_rows(value)
        return Part(value, head.shards.start * head.sub_centers, head.num_classes * head.sub_centers)

    def _parameters(self) -> dict[str, nn.Parameter]:
        modules = {"backbone": self.backbone, "head": self.head}
        return {f"{what}.{name}": p for what, module in modules.items() for name, p in module.named_parameters()}

    def _in_groups(self) -> list[str]:
        """Names of the parameters in the optimiser's order."""
        names = {id(parameter): name for name, parameter in self._parameters().items()}
        return [names[id(p)] for group in self.optimizer.param_groups for p in group["params"]]

    def _states(self, saved: SavedState) -> dict[str, dict[str, Tensor]]:
        """Room for the optimiser's state: the saved one tells which parameters have one."""
        parameters, keys = self._parameters(), OPTIMIZER_STATE[type(self.optimizer)]
        found: dict[str, set[str]] = {}
        for entry in saved.shapes:
            name, _, key = entry.removeprefix("optimizer.").partition(":")
            if entry.startswith("optimizer."):
                found.setdefault(name, set()).add(key)
        room: dict[str, dict[str, Tensor]] = {}
        for name in self._in_groups():
            if name not in found:
                continue
            if found[name] != keys:
                raise InputError(
                    f"{saved.folder} holds another optimizer's state than the configuration names: of {name} it has "
                    f"{', '.join(sorted(found[name]))[:200]}, not {', '.join(sorted(keys))}"
                )
            value = parameters[name].detach()
            room[name] = {key: torch.zeros(()) if key == "step" else torch.zeros_like(value) for key in keys}
        return room


def _state(module: nn.Module) -> Mapping[str, Tensor]:
    state: dict[str, Any] = module.state_dict()
    return state


def _compare(saved: SavedState, weights: Mapping[str, Tensor | Part]) -> None:
    """Whether names and shapes of what the run consists of are those saved."""
    parts = {name.partition(".")[0] for name in weights}
    wanted = {name: as_part(value).shape for name, value in weights.items()}
    found = {name: shape for name, shape in saved.shapes.items() if name.partition(".")[0] in parts}
    for name in (*wanted, *sorted(found.keys() - wanted.keys())):
        if wanted.get(name) != found.get(name):
            there, here = (str(shapes.get(name, "absent")) for shapes in (found, wanted))
            part, _, key = name.partition(".")
            raise InputError(
                f"{saved.folder} holds another {'weight average' if part == 'average' else part} than the "
                f"configuration names: {key} is {there} there, {here} here"
            )
