"""Circle loss, classification form (Sun et al., CVPR 2020, arXiv:2002.10857, eq. 6 to 9)."""

from typing import Unpack

import torch
from torch import Tensor

from marginface.margins.base import Margin, MarginOptions
from marginface.margins.ranges import cosine, positive


class CircleLoss(Margin):
    """Target: α_p·(cos θ_y − (1 − m)) with α_p = [1 + m − cos θ_y]₊; the scale is γ.

    Negatives: α_n·(cos θ_j − m) with α_n = [cos θ_j + m]₊. The weights α carry no gradient.
    """

    def __init__(self, m: float = 0.25, gamma: float = 256.0, **options: Unpack[MarginOptions]) -> None:
        super().__init__(positive("gamma", gamma), **options)
        self.m = cosine("m", m)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return (1 + self.m - cos_N.detach()).clamp_min(0) * (cos_N - (1 - self.m))

    def bend_negatives(self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor) -> Tensor:
        return (cos_NK.detach() + self.m).clamp_min(0) * (cos_NK - self.m)

    def bend_negatives_(
        self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor, spare_NK: Tensor, slope_NK: Tensor | None
    ) -> None:
        weight_NK = torch.add(cos_NK, self.m, out=spare_NK if slope_NK is None else slope_NK).clamp_min_(0)
        cos_NK.sub_(self.m).mul_(weight_NK)
