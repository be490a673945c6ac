"""AdaCos (Zhang et al., CVPR 2019, arXiv:1905.00292, eq. 10 to 15): no margin, and the scale finds itself."""

import math
from typing import Unpack

import torch
from torch import Tensor

from marginface.errors import InputError
from marginface.margins.base import Margin, MarginOptions, angle


class AdaCos(Margin):
    """logit_j = s·cos θ_j with s = ln(B) / cos(min(π/4, median θ_y)); starts at √2·ln(C − 1).

    B is the batch mean of Σ_{j≠y} exp(s·cos θ_j). The paper computes it for the present batch with the
    previous scale, which costs a second pass over all classes; here it is that of the previous batch (engines
    have it anyway), and C − 1 before the first. `dynamic=False` keeps the starting scale (fixed AdaCos).
    """

    observes_others = True
    s: Tensor
    log_b: Tensor

    def __init__(self, num_classes: int, dynamic: bool = True, **options: Unpack[MarginOptions]) -> None:
        if num_classes < 1:
            raise InputError(f"adacos needs num_classes of at least 1, not {num_classes}.")
        log_b = math.log(max(num_classes - 1, 2))
        super().__init__(math.sqrt(2) * log_b, **options)
        self.dynamic = dynamic
        self.register_buffer("s", torch.tensor(self.scale))
        self.register_buffer("log_b", torch.tensor(log_b))

    def update(self, cos_y_N: Tensor, norms_N: Tensor) -> None:
        if self.dynamic and len(cos_y_N) > 0:
            theta = angle(cos_y_N).median().clamp_max(math.pi / 4)
            self.s.copy_((self.log_b / theta.cos()).clamp_min(1.0))

    def observe(self, log_others_N: Tensor) -> None:
        log_b = torch.logsumexp(log_others_N, 0) - math.log(max(1, len(log_others_N)))
        self.log_b.copy_(torch.where(log_b.isfinite(), log_b, self.log_b))

    def row_scale(self, norms_N: Tensor) -> Tensor:
        return self.s.to(norms_N).expand_as(norms_N)
