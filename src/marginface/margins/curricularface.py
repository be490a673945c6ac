"""CurricularFace (Huang et al., CVPR 2020, arXiv:2004.00288, eq. 4 to 8): hard negatives grow in weight."""

from typing import Unpack

import torch
from torch import Tensor

from marginface.margins.arcface import add_angle
from marginface.margins.base import Margin, MarginOptions, angle
from marginface.margins.ranges import radians, share


class CurricularFace(Margin):
    """Target: ArcFace with the "linear" overflow. Negatives above cos(θ_y + m): cos θ_j·(t + cos θ_j).

    t ← alpha·mean(cos θ_y) + (1 − alpha)·t over the global batch, before use; a buffer, starting at 0.
    """

    t: Tensor

    def __init__(self, s: float = 64.0, m: float = 0.5, alpha: float = 0.01, **options: Unpack[MarginOptions]) -> None:
        super().__init__(s, **options)
        self.m, self.alpha = radians("m", m), share("alpha", alpha)
        self.register_buffer("t", torch.zeros(1))

    def update(self, cos_y_N: Tensor, norms_N: Tensor) -> None:
        if len(cos_y_N) > 0:
            self.t.lerp_(cos_y_N.mean().to(self.t), self.alpha)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return add_angle(cos_N, torch.full_like(cos_N, self.m), "linear")

    def bend_negatives(self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor) -> Tensor:
        hard_NK = cos_NK > self.threshold(cos_y_N)
        return torch.where(hard_NK, cos_NK * (self.t + cos_NK), cos_NK)

    def bend_negatives_(
        self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor, spare_NK: Tensor, slope_NK: Tensor | None
    ) -> None:
        growth = (self.t - 1).to(cos_NK)
        hard_NK = torch.gt(cos_NK, self.threshold(cos_y_N), out=spare_NK if slope_NK is None else slope_NK)
        hard_cos_NK = torch.mul(hard_NK, cos_NK, out=spare_NK)
        if slope_NK is not None:
            torch.addcmul(cos_NK.new_ones(()), hard_NK, growth, out=slope_NK).add_(hard_cos_NK, alpha=2)
        cos_NK.addcmul_(cos_NK, hard_cos_NK).addcmul_(hard_cos_NK, growth)

    def threshold(self, cos_y_N: Tensor) -> Tensor:
        """cos(θ_y + m) (N, 1)."""
        return (angle(cos_y_N) + self.m).cos()[:, None]
