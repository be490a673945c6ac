"""SGD with momentum on the class weights inside the backward pass: their gradient never exists as a whole.

`head.py` hands it to the engine as the sink of the gradient's blocks. Equal to torch.optim.SGD, but for classes
that did not take part (Partial FC): their momentum stays as it is and they do not decay.
"""

from dataclasses import dataclass

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
