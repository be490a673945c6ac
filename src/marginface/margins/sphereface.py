"""SphereFace (A-Softmax; Liu et al., CVPR 2017, arXiv:1704.08063) and SphereFace-R (arXiv:2109.05565)."""

import math
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from marginface.margins.base import CountsOnHost, Margin, MarginGrad, MarginOptions, angle
from marginface.margins.ranges import non_negative, positive


class SphereFace(CountsOnHost, Margin):
    """Target: (λ·cos θ + ψ(θ)) / (1 + λ), ψ(θ) = (−1)^k·cos(mθ) − 2k, k = ⌊mθ/π⌋; the scale is ‖x‖.

    λ = max(lambda_min, lambda_base / (1 + lambda_gamma·iteration)); `iteration` is a buffer counting from 1.
    The authors' Caffe layer (and yakhyo's PyTorch) use 1000 and 0.12, clcarwin's PyTorch 1500 and 0.1.
    """

    reads_norms = True
    scale_from_norm = True
    on_host = ("iteration",)
    iteration: Tensor

    def __init__(
        self,
        m: int = 4,
        lambda_base: float = 1000.0,
        lambda_gamma: float = 0.12,
        lambda_min: float = 5.0,
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(1.0, **options)
        self.m = positive("m", m)
        self.lambda_base = non_negative("lambda_base", lambda_base)
        self.lambda_gamma = non_negative("lambda_gamma", lambda_gamma)
        self.lambda_min = non_negative("lambda_min", lambda_min)
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long, device="cpu"))

    def annealing(self) -> float:
        """λ of the present iteration."""
        return max(self.lambda_min, self.lambda_base / (1 + self.lambda_gamma * int(self.iteration)))

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return cos_N + (psi(cos_N, self.m) - cos_N) / (1 + self.annealing())

    def row_scale(self, norms_N: Tensor) -> Tensor:
        return norms_N

    def update(self, cos_y_N: Tensor, norms_N: Tensor) -> None:
        self.iteration += 1


class SphereFaceR(Margin):
    """Target: ψ(θ) with a real m and a fixed scale; straight-through, as in OpenSphere."""

    default_grad: ClassVar[MarginGrad] = "straight_through"

    def __init__(self, s: float = 30.0, m: float = 1.7, **options: Unpack[MarginOptions]) -> None:
        super().__init__(s, **options)
        self.m = positive("m", m)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return psi(cos_N, self.m)


def psi(cos: Tensor, m: float) -> Tensor:
    """cos(mθ) continued so that it falls monotonically from 1 at θ = 0 to 1 − 2m at θ = π (integer m)."""
    multiple = m * angle(cos)
    k = torch.floor(multiple.detach() / math.pi)
    return (1 - 2 * (k % 2)) * multiple.cos() - 2 * k
