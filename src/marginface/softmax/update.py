"""How class weights move so that classes not drawn (Partial FC) rest: no decay, and their momentum stays as it is.

Either inside the backward pass (`FusedUpdate`: SGD with momentum; the gradient never exists as a whole), or by any
optimiser, which is shown only the rows drawn (`show_drawn_rows`). `head.py` offers both.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marginface.errors import InputError


@dataclass
class FusedSGD:
    """Settings of the update; change `lr` between steps to follow a schedule."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if min(self.lr, self.momentum, self.weight_decay) < 0:
            raise InputError(f"lr, momentum and weight_decay must not be negative: {self}.")


class FusedUpdate:
    """Takes the gradient of one block after the other and updates these rows at once."""

    def __init__(self, weight: Tensor, momentum: Tensor, settings: FusedSGD) -> None:
        self.weight, self.momentum, self.settings = weight.detach(), momentum, settings

    def put(self, rows: slice | Tensor, grad_BD: Tensor) -> None:
        weight_BD, momentum_BD = (
            self.weight[rows],
            self.momentum[rows],
        )  # views of a slice, copies of drawn rows
        grad_BD = grad_BD.add_(weight_BD, alpha=self.settings.weight_decay)
        momentum_BD.mul_(self.settings.momentum).add_(grad_BD)
        weight_BD.add_(momentum_BD, alpha=-self.settings.lr)
        if isinstance(rows, Tensor):
            self.weight.index_copy_(0, rows, weight_BD)
            self.momentum.index_copy_(0, rows, momentum_BD)

    def gradient(self) -> Tensor | None:
        return None


class DrawnGradient:
    """Collects the gradient of the drawn rows as a sparse tensor (COO), which holds nothing for the others."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()
        self.rows: list[Tensor] = []
        self.values: list[Tensor] = []

    def put(self, rows: slice | Tensor, grad_BD: Tensor) -> None:
        if isinstance(rows, slice):
            rows = torch.arange(rows.start, rows.stop, device=grad_BD.device)
        self.rows.append(rows)
        self.values.append(grad_BD.to(self.weight.dtype, copy=True))

    def gradient(self) -> Tensor | None:
        rows = torch.cat([self.weight.new_empty(0, dtype=torch.long), *self.rows])
        values = torch.cat([self.weight[:0], *self.values])
        # rows come once and ascending, which the device need not find out
        return torch.sparse_coo_tensor(rows[None], values, self.weight.shape, check_invariants=False, is_coalesced=True)


def show_drawn_rows(optimizer: torch.optim.Optimizer, weight: Tensor) -> None:
    """From now on `optimizer.step()` sees of `weight` and its state only the rows of its sparse gradient."""
    whole: dict[str, Any] = {}

    def before(*_: Any) -> None:
        if weight.grad is None:
            return
        grad = weight.grad.coalesce()
        state, rows = optimizer.state[weight], grad.indices()[0]
        tables = {name: value for name, value in state.items() if _fits(value, weight)}
        whole.update(weight=weight.data, grad=weight.grad, rows=rows, tables=tables)
        weight.grad = None
        weight.data = weight.data[rows]
        weight.grad = grad.values()
        state.update({name: table[rows] for name, table in tables.items()})

    def after(*_: Any) -> None:
        if not whole:
            return
        state, rows = optimizer.state[weight], whole["rows"]
        found = {name: value for name, value in state.items() if _fits(value, weight)}
        weight.grad = None
        weight.data = whole["weight"].index_copy_(0, rows, weight.data)
        weight.grad = whole["grad"]
        for name, value in found.items():
            table = whole["tables"].get(name)
            table = torch.zeros_like(weight.data) if table is None else table
            state[name] = table.index_copy_(0, rows, value)
        whole.clear()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _fits(value: Any, weight: Tensor) -> bool:
    """Whether this part of an optimiser's state has a row for every row of the weight."""
    return isinstance(value, Tensor) and value.shape == weight.shape
