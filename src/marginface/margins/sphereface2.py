"""SphereFace2 (Wen et al., ICLR 2022, arXiv:2108.01513, eq. 7): one binary classifier for every identity."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from marginface.errors import InputError
from marginface.margins.base import MarginGrad
from marginface.margins.binary import BinaryMargin
from marginface.margins.ranges import cosine, positive


class SphereFace2(BinaryMargin):
    """Logits r·(g(cos θ) ∓ m) + b with g(c) = 2·((c + 1)/2)^t − 1, weighted alpha and 1 − alpha.

    Times lw/r, summed over the classes (OpenSphere: mean over N·C of lw·C/r, the same). b starts where the
    positive and the negatives pull equally. For MS1M the authors use alpha 0.8, r 64, m 0.5.
    """

    default_grad: ClassVar[MarginGrad] = "straight_through"

    def __init__(
        self,
        num_classes: int,
        alpha: float = 0.7,
        r: float = 40.0,
        m: float = 0.4,
        t: float = 3.0,
        lw: float = 50.0,
        margin_grad: MarginGrad | None = None,
        interclass_filter: float = 0.0,
    ) -> None:
        if num_classes < 1 or not 0 < alpha < 1:
            raise InputError(f"sphereface2 needs num_classes ≥ 1 and 0 < alpha < 1, not {num_classes} and {alpha}.")
        r, m, t, lw = positive("r", r), cosine("m", m), positive("t", t), positive("lw", lw)
        bias = _balanced_bias(max(num_classes, 2), alpha, r, m, t)
        super().__init__(r, bias, alpha * lw / r, (1 - alpha) * lw / r, margin_grad, interclass_filter)
        self.m, self.t = m, t

    def bend_positive(self, cos: Tensor) -> Tensor:
        return self._g(cos) - self.m

    def bend_negative(self, cos: Tensor) -> Tensor:
        return self._g(cos) + self.m

    def bend_negatives_(self, products_TK: Tensor, offset_T1: Tensor, unit: float) -> Tensor:
        slope, height = 2 / 2**self.t * self.scale * unit, ((self.m - 1) * self.scale + self.bias.detach()) * unit
        powers_TK = products_TK.add_(offset_T1 + 1).clamp_min_(0).pow_(self.t)
        return torch.add(height, powers_TK, alpha=slope, out=powers_TK)

    def _g(self, cos: Tensor) -> Tensor:
        return 2 * ((cos + 1) / 2).clamp_min(0) ** self.t - 1


def _balanced_bias(num_classes: int, alpha: float, r: float, m: float, t: float) -> float:
    """The b for which, with all cosines 0, alpha·σ(−positive) = (1 − alpha)·(C − 1)·σ(negative)."""
    positive: float = r * (2 * 0.5**t - 1 - m)
    negative: float = r * (2 * 0.5**t - 1 + m)
    z = alpha / ((1 - alpha) * (num_classes - 1))
    root = math.sqrt((1 - z) ** 2 + 4 * z * math.exp(positive - negative))
    return math.log(2 * z) - negative - math.log(1 - z + root)
