"""CosFace (Wang et al., CVPR 2018, arXiv:1801.09414, eq. 4), also called AM-Softmax (arXiv:1801.05599)."""

from typing import Unpack

from torch import Tensor

from marginface.margins.base import Margin, MarginOptions
from marginface.margins.ranges import cosine


class CosFace(Margin):
    """Target: cos θ_y − m. InsightFace trains with m 0.4, AM-Softmax with s 30."""

    def __init__(self, s: float = 64.0, m: float = 0.35, **options: Unpack[MarginOptions]) -> None:
        super().__init__(s, **options)
        self.m = cosine("m", m)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return cos_N - self.m
