"""SV-Softmax (Wang et al., 2018, arXiv:1812.11317) and MV-Softmax (AAAI 2020, arXiv:1912.00833)."""

from typing import Literal, Unpack

import torch
from torch import Tensor

from marginface.margins.arcface import Overflow, add_angle
from marginface.margins.base import Margin, MarginOptions, one_of
from marginface.margins.ranges import cosine, positive, radians

Target = Literal["am", "arc"]


class SVSoftmax(Margin):
    """Support vectors, the negatives with cos θ_j > φ_y, become t·cos θ_j + t − 1; t = 1 turns this off.

    φ_y is the target after the margin: cos θ_y − m ("am", m 0.35 unless given) or ArcFace with the "linear"
    overflow ("arc", m 0.5 unless given), with s and t as in OpenVINO's face recognition training.
    """

    def __init__(
        self,
        s: float = 30.0,
        m: float | None = None,
        t: float = 1.1,
        target: Target = "am",
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, **options)
        one_of("target", target, ("am", "arc"))
        chosen = m if m is not None else {"am": 0.35, "arc": 0.5}[target]
        self.m = cosine("m", chosen) if target == "am" else radians("m", chosen)
        self.t = positive("t", t)
        self.target_type: Target = target

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return self.full_margin(cos_N, "linear")

    def full_margin(self, cos_N: Tensor, overflow: Overflow) -> Tensor:
        """cos θ − m or cos(θ + m)."""
        if self.target_type == "am":
            return cos_N - self.m
        return add_angle(cos_N, torch.full_like(cos_N, self.m), overflow)

    def bend_negatives(self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor) -> Tensor:
        return torch.where(cos_NK > bent_N[:, None], self.t * cos_NK + (self.t - 1), cos_NK)

    def bend_negatives_(
        self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor, spare_NK: Tensor, slope_NK: Tensor | None
    ) -> None:
        hard_NK = torch.gt(cos_NK, bent_N[:, None], out=spare_NK)
        growth = self.t - 1
        if slope_NK is not None:
            torch.add(cos_NK.new_ones(()), hard_NK, alpha=growth, out=slope_NK)
        cos_NK.addcmul_(hard_NK, cos_NK, value=growth).add_(hard_NK, alpha=growth)


class MVSoftmax(SVSoftmax):
    """As SV-Softmax, but the target keeps its plain cosine where cos θ_y ≤ m ("am") or ≤ 0 ("arc").

    Negatives are still compared with the full margin, cos θ_y − m or cos(θ_y + m).
    """

    def __init__(
        self,
        s: float = 32.0,
        m: float = 0.35,
        t: float = 1.12,
        target: Target = "am",
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, m, t, target, **options)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        least = self.m if self.target_type == "am" else 0.0
        return torch.where(cos_N > least, self.full_margin(cos_N, "none"), cos_N)

    def bend_negatives(self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor) -> Tensor:
        return super().bend_negatives(cos_NK, cos_y_N, self.full_margin(cos_y_N, "none"))

    def bend_negatives_(
        self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor, spare_NK: Tensor, slope_NK: Tensor | None
    ) -> None:
        super().bend_negatives_(cos_NK, cos_y_N, self.full_margin(cos_y_N, "none"), spare_NK, slope_NK)
