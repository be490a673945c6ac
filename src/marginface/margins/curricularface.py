"""CurricularFace (Huang et al., CVPR 2020, arXiv:2004.00288, eq. 4 to 8): hard negatives grow in weight."""

from typing import Unpack

import torch
from torch import Tensor

from marginface.margins.arcface import add_angle
from marginface.margins.base import Margin, MarginOptions, angle


class CurricularFace(Margin):
    """Target: ArcFace with the "linear" overflow. Negatives above cos(θ_y + m): cos θ_j·(t + cos θ_j).

    t ← alpha·mean(cos θ_y) + (1 − alpha)·t over the global batch, before use; a buffer, starting at 0.
    """

    t: Tensor

    def __init__(self, s: float = 64.0, m: float = 0.5, alpha: float = 0.01, **options: Unpack[MarginOptions]) -> None:
        super().__init__(s, **options)
        self.m, self.alpha = m, alpha
        self.register_buffer("t", torch.zeros(1))

    def update(self, cos_y_N: Tensor, norms_N: Tensor) -> None:
        if len(cos_y_N) > 0:
            self.t.lerp_(cos_y_N.mean().to(self.t), self.alpha)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return add_angle(cos_N, torch.full_like(cos_N, self.m), "linear")

    def bend_negatives(self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor) -> Tensor:
        hard_NK = cos_NK > (angle(cos_y_N) + self.m).cos()[:, None]
        return torch.where(hard_NK, cos_NK * (self.t + cos_NK), cos_NK)
