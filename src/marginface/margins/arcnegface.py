"""ArcNegFace (Liu et al., ICCVW 2019, arXiv:1909.00632): negatives near the bent target weigh more."""

import math
from typing import Unpack

import torch
from torch import Tensor

from marginface.margins.arcface import add_angle
from marginface.margins.base import Margin, MarginOptions
from marginface.margins.ranges import positive, radians


class ArcNegFace(Margin):
    """Target: a, ArcFace with the "linear" overflow. Negatives: w·(cos θ_j + 1) − 1.

    w = alpha·exp(−(cos θ_j − a)²/sigma), differentiated in cos θ_j and constant in a.
    """

    def __init__(
        self,
        s: float = 64.0,
        m: float = 0.5,
        alpha: float = 1.2,
        sigma: float = 2.0,
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, **options)
        self.m, self.alpha, self.sigma = radians("m", m), positive("alpha", alpha), positive("sigma", sigma)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return add_angle(cos_N, torch.full_like(cos_N, self.m), "linear")

    def bend_negatives(self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor) -> Tensor:
        weight_NK = self.alpha * torch.exp(-((cos_NK - bent_N[:, None]) ** 2) / self.sigma)
        return weight_NK * (cos_NK + 1) - 1

    def bend_negatives_(
        self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor, spare_NK: Tensor, slope_NK: Tensor | None
    ) -> None:
        distance_NK = torch.sub(cos_NK, bent_N[:, None], out=spare_NK)
        cos_NK.add_(1)
        if slope_NK is not None:
            torch.addcmul(cos_NK.new_ones(()), distance_NK, cos_NK, value=-2 / self.sigma, out=slope_NK)
        bits = cos_NK.new_full((), math.log2(self.alpha))
        weight_NK = torch.addcmul(bits, distance_NK, distance_NK, value=-math.log2(math.e) / self.sigma, out=spare_NK)
        weight_NK.exp2_()
        if slope_NK is not None:
            slope_NK.mul_(weight_NK)
        torch.addcmul(cos_NK.new_full((), -1.0), cos_NK, weight_NK, out=cos_NK)
