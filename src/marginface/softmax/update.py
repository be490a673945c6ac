"""How class weights move so that classes not drawn (Partial FC) rest: no decay, and their momentum stays as it is.

Either inside the backward pass (`FusedUpdate`: SGD with momentum; the gradient never exists as a whole), or by any
optimiser, which is shown only the rows drawn (`show_drawn_rows`). `head.py` offers both.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marginface.errors import InputError
from marginface.margins.base import at_least_float32
from marginface.softmax.classes import Piece, Rows
from marginface.softmax.kernels import through_norm
from marginface.softmax.workspace import Workspace


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

    def __init__(self, weight: Tensor, momentum: Tensor, settings: FusedSGD, workspace: Workspace) -> None:
        self.weight, self.momentum, self.settings, self.workspace = weight.detach(), momentum, settings, workspace
        # a tensor, so that compiled code need not be compiled again for every value of a schedule
        self.lr = torch.full((), settings.lr, dtype=at_least_float32(momentum[:0]).dtype, device=weight.device)

    def put(self, rows: Rows, piece: Piece) -> None:
        momentum_TD = self.momentum[rows]  # a view of a slice, a copy of drawn rows
        momentum, decay = self.settings.momentum, self.settings.weight_decay
        self.workspace.run(descend, momentum_TD, self.lr, momentum, decay, *piece)
        if isinstance(rows, Tensor):
            self.weight.index_copy_(0, rows, piece.weight_TD.to(self.weight.dtype))
            self.momentum.index_copy_(0, rows, momentum_TD)
        elif piece.weight_TD.dtype != self.weight.dtype:
            self.weight[rows] = piece.weight_TD.to(self.weight.dtype)

    def gradient(self) -> Tensor | None:
        return None


def descend(
    momentum_TD: Tensor,
    lr: Tensor,
    momentum: float,
    weight_decay: float,
    by_unit_TD: Tensor,
    weight_TD: Tensor,
    inverse_T: Tensor | None,
    radial_T: Tensor | None,
    spare_TD: Tensor | None,
) -> None:
    """A step of SGD with momentum, in place, along the gradient that `through_norm` makes of a `Piece`."""
    grad_TD = through_norm(by_unit_TD, weight_TD, inverse_T, radial_T, spare_TD).add_(weight_TD, alpha=weight_decay)
    momentum_TD.mul_(momentum).add_(grad_TD)
    weight_TD.addcmul_(momentum_TD, lr, value=-1)


@dataclass
class LastDraw:
    """How many rows of the weight the last backward pass gave a gradient to."""

    num_rows: int = 0


class DrawnGradient:
    """Collects the gradient of the drawn rows as a sparse tensor (COO), which holds nothing for the others."""

    def __init__(self, weight: Tensor, workspace: Workspace, last: LastDraw) -> None:
        self.weight, self.workspace, self.last = weight.detach(), workspace, last
        self.rows: list[Tensor] = []
        self.values: list[Tensor] = []

    def put(self, rows: Rows, piece: Piece) -> None:
        if isinstance(rows, slice):
            rows = torch.arange(rows.start, rows.stop, device=self.weight.device)
        self.rows.append(rows)
        grad_TD = self.workspace.run(through_norm, *piece)
        self.values.append(grad_TD.to(self.weight.dtype, copy=True))

    def gradient(self) -> Tensor | None:
        rows = torch.cat([self.weight.new_empty(0, dtype=torch.long), *self.rows])
        values = torch.cat([self.weight[:0], *self.values])
        self.last.num_rows = len(rows)
        # rows come once and ascending, which the device need not find out
        return torch.sparse_coo_tensor(rows[None], values, self.weight.shape, check_invariants=False, is_coalesced=True)


def show_drawn_rows(optimizer: torch.optim.Optimizer, weight: Tensor) -> LastDraw:
    """From now on `optimizer.step()` sees of `weight` and its state only the rows of its sparse gradient.

    Returns what every `DrawnGradient` must be given.
    """
    whole: dict[str, Any] = {}
    last = LastDraw()

    def before(*_: Any) -> None:
        if weight.grad is None:
            return
        rows, values = drawn_rows(weight.grad, last)
        state = optimizer.state[weight]
        tables = {name: value for name, value in state.items() if _fits(value, weight)}
        whole.update(weight=weight.data, grad=weight.grad, rows=rows, tables=tables)
        weight.grad = None
        weight.data = weight.data[rows]
        weight.grad = values
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
    return last


def drawn_rows(grad: Tensor, last: LastDraw) -> tuple[Tensor, Tensor]:
    """Rows (S,), ascending, and their gradients (S, D) of a sparse gradient.

    That of a single backward pass is sorted already, which torch forgets, and to sort it again is to wait for the
    device. Several, one behind the other, are longer than the last and have to be added up.
    """
    if grad._nnz() != last.num_rows:
        grad = grad.coalesce()
    return grad._indices()[0], grad._values()


def _fits(value: Any, weight: Tensor) -> bool:
    """Whether this part of an optimiser's state has a row for every row of the weight."""
    return isinstance(value, Tensor) and value.shape == weight.shape
