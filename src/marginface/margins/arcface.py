"""ArcFace (Deng et al., CVPR 2019, arXiv:1801.07698, eq. 3) and the ways in use of handling θ + m > π."""

import math
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from marginface.margins.base import Margin, MarginGrad, MarginOptions, angle, one_of
from marginface.margins.ranges import radians, share

Overflow = Literal["none", "clip", "linear", "easy"]


class ArcFace(Margin):
    """Target: cos(θ_y + m). The gradient is straight-through by default, as in InsightFace.

    Args:
        overflow: what happens once θ + m > π, where cos(θ + m) rises again:
            "none": nothing (InsightFace, ElasticFace);
            "clip": θ + m is clipped to [clip_eps, π − clip_eps] (AdaFace's ArcFace, OpenSphere);
            "linear": cos θ − m·sin m once cos θ ≤ cos(π − m) (the paper's first code, OpenVINO, PML);
            "easy": no margin where cos θ ≤ 0 (easy_margin).
        clip_eps: for "clip"; AdaFace 1e-4, OpenSphere 1e-5.
    """

    default_grad: ClassVar[MarginGrad] = "straight_through"

    def __init__(
        self,
        s: float = 64.0,
        m: float = 0.5,
        overflow: Overflow = "none",
        clip_eps: float = 1e-4,
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, **options)
        one_of("overflow", overflow, ("none", "clip", "linear", "easy"))
        self.m = radians("m", m)
        self.overflow: Overflow = overflow
        self.clip_eps = share("clip_eps", clip_eps)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return add_angle(cos_N, torch.full_like(cos_N, self.m, requires_grad=False), self.overflow, self.clip_eps)


def add_angle(cos_N: Tensor, m_N: Tensor, overflow: Overflow = "none", clip_eps: float = 1e-4) -> Tensor:
    """cos(θ + m) with a margin per row; shared by every arc-type margin. See `ArcFace` for `overflow`."""
    sum_N = angle(cos_N) + m_N
    if overflow == "clip":
        return sum_N.clamp(clip_eps, math.pi - clip_eps).cos()
    if overflow == "linear":
        return torch.where(cos_N > -m_N.cos(), sum_N.cos(), cos_N - m_N * m_N.sin())
    if overflow == "easy":
        return torch.where(cos_N > 0, sum_N.cos(), cos_N)
    return sum_N.cos()
