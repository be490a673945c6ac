"""AdaFace (Kim et al., CVPR 2022, arXiv:2204.00964, eq. 10 to 13): the norm shapes the margin."""

import math
from typing import Unpack

import torch
from torch import Tensor

from marginface.margins.base import Margin, MarginOptions, angle
from marginface.margins.ranges import cosine, non_negative, share


class AdaFace(Margin):
    """Target: cos(θ_y − m·z) − (m + m·z), z = clip(h·(a − μ)/(σ + 1e-3), −1, 1), a = clip(‖x‖, 1e-3, 100).

    μ and σ (unbiased) are running statistics of the global batch (`batch_mean`, `batch_std`), moved by
    t_alpha before use; a batch of one leaves σ as it is. No gradient passes through the norms.

    Args:
        eps: cos θ_y is clamped to ±(1 − eps) and θ_y − m·z to [eps, π − eps]. 0 turns both off, which with
            margin_grad "straight_through" is CVLface's AdaFace.
    """

    reads_norms = True
    norms_tell_quality = True
    batch_mean: Tensor
    batch_std: Tensor

    def __init__(
        self,
        s: float = 64.0,
        m: float = 0.4,
        h: float = 0.333,
        t_alpha: float = 0.01,
        eps: float = 1e-3,
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, **options)
        self.m, self.h = cosine("m", m), non_negative("h", h)
        self.t_alpha, self.eps = share("t_alpha", t_alpha), share("eps", eps)
        self.register_buffer("batch_mean", torch.full((1,), 20.0))
        self.register_buffer("batch_std", torch.full((1,), 100.0))

    def update(self, cos_y_N: Tensor, norms_N: Tensor) -> None:
        norms_N = norms_N.clamp(1e-3, 100).to(self.batch_mean)
        if len(norms_N) > 0:
            self.batch_mean.lerp_(norms_N.mean(), self.t_alpha)
        if len(norms_N) > 1:
            self.batch_std.lerp_(norms_N.std(), self.t_alpha)

    def quality(self, norms_N: Tensor) -> Tensor:
        """z of every row (N,), in [−1, 1]."""
        norms_N = norms_N.detach().clamp(1e-3, 100)
        return (self.h * (norms_N - self.batch_mean) / (self.batch_std + 1e-3)).clamp(-1, 1)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        m_N = self.m * self.quality(norms_N)
        if self.eps > 0:
            cos_N = cos_N.clamp(self.eps - 1, 1 - self.eps)
        theta_N = angle(cos_N) - m_N
        if self.eps > 0:
            theta_N = theta_N.clamp(self.eps, math.pi - self.eps)
        return theta_N.cos() - (self.m + m_N)
