"""Combined margin (Deng et al., CVPR 2019, arXiv:1801.07698, eq. 4): Sphere-, Arc- and CosFace in one."""

from typing import ClassVar, Unpack

from torch import Tensor

from marginface.margins.base import Margin, MarginGrad, MarginOptions, angle
from marginface.margins.ranges import cosine, positive, radians


class Combined(Margin):
    """Target: cos(m1·θ_y + m2) − m3. Defaults: the paper's CM1 (1, 0.3, 0.2); its CM2 is (0.9, 0.4, 0.15).

    InsightFace's CombinedMarginLoss drops m1 and m2 as soon as m3 > 0: for its numbers take `cosface`.
    """

    default_grad: ClassVar[MarginGrad] = "straight_through"

    def __init__(
        self,
        s: float = 64.0,
        m1: float = 1.0,
        m2: float = 0.3,
        m3: float = 0.2,
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, **options)
        self.m1, self.m2, self.m3 = positive("m1", m1), radians("m2", m2), cosine("m3", m3)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return (self.m1 * angle(cos_N) + self.m2).cos() - self.m3
