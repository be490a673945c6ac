"""UniFace (Zhou et al., ICCV 2023): unified cross-entropy, one threshold for all identities."""

from typing import ClassVar

import torch
from torch import Tensor

from marginface.margins.base import MarginGrad
from marginface.margins.binary import BinaryMargin
from marginface.margins.ranges import cosine, finite, positive


class UniFace(BinaryMargin):
    """log(1 + exp(b − s·(cos θ_y − m))) + l·Σ_{j≠y} log(1 + exp(s·cos θ_j − b)), b learned.

    `bias` is where b starts; the parameter of the module holds −b, which is added to the logits.
    """

    linear: ClassVar[bool] = True

    def __init__(
        self,
        s: float = 64.0,
        m: float = 0.4,
        l: float = 1.0,  # noqa: E741 (the paper's name)
        bias: float = 15.0,
        margin_grad: MarginGrad | None = None,
        interclass_filter: float = 0.0,
    ) -> None:
        super().__init__(positive("s", s), -finite("bias", bias), 1.0, positive("l", l), margin_grad, interclass_filter)
        self.m = cosine("m", m)

    def bend_positive(self, cos: Tensor) -> Tensor:
        return cos - self.m

    def bend_negative(self, cos: Tensor) -> Tensor:
        return cos

    def bend_negatives_(self, products_TK: Tensor, offset_T1: Tensor, unit: float) -> Tensor:
        height_T1 = (offset_T1 * self.scale + self.bias.detach()) * unit
        return torch.add(height_T1, products_TK, alpha=self.scale * unit, out=products_TK)
