"""What the state of a run consists of, for any number of processes: gathered to be saved, given back on resuming."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from marginface.errors import InputError
from marginface.processes import together
from marginface.softmax import MarginSoftmax
from marginface.training.optim import WeightAverage
from marginface.weights.parts import Part, own_rows
from marginface.weights.state import SavedState

CLASS_ROWS = ("weight", "bias", "momentum")  # of the head: a row a class, of which every process has some


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
        states = self._states(saved)
        parts = {
            f"optimizer.{name}:{key}": self._rows(name, value)
            for name, values in states.items()
            for key, value in values.items()
        }
        saved.read(weights | parts)
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
        """Room for the optimiser's state: the saved one tells what there is of each parameter."""
        parameters = self._parameters()
        room: dict[str, dict[str, Tensor]] = {name: {} for name in self._in_groups()}
        for entry in saved.shapes:
            name, _, key = entry.removeprefix("optimizer.").partition(":")
            if entry.startswith("optimizer.") and name in room:
                counted = len(saved.shapes[entry]) == 0  # the steps taken, where the optimiser counts them
                room[name][key] = torch.zeros(()) if counted else torch.zeros_like(parameters[name].detach())
        return {name: values for name, values in room.items() if values}


def _state(module: nn.Module) -> Mapping[str, Tensor]:
    state: dict[str, Any] = module.state_dict()
    return state


def _compare(saved: SavedState, weights: Mapping[str, Tensor | Part]) -> None:
    """Whether names and shapes of what the run consists of are those saved."""
    parts = {name.partition(".")[0] for name in weights}
    wanted = {name: _shape(value) for name, value in weights.items()}
    found = {name: tuple(shape) for name, shape in saved.shapes.items() if name.partition(".")[0] in parts}
    for name in (*wanted, *sorted(found.keys() - wanted.keys())):
        if wanted.get(name) != found.get(name):
            there, here = (str(shapes.get(name, "absent")) for shapes in (found, wanted))
            part, _, key = name.partition(".")
            raise InputError(
                f"{saved.folder} holds another {'weight average' if part == 'average' else part} than the "
                f"configuration names: {key} is {there} there, {here} here"
            )


def _shape(value: Tensor | Part) -> tuple[int, ...]:
    return (value.total, *value.rows.shape[1:]) if isinstance(value, Part) else tuple(value.shape)
