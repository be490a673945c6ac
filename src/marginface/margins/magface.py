"""MagFace (Meng et al., CVPR 2021, arXiv:2103.06627): the norm is the quality, and sets the margin."""

import math
from typing import Literal, Unpack

from torch import Tensor

from marginface.errors import InputError
from marginface.margins.arcface import Overflow, add_angle
from marginface.margins.base import Margin, MarginOptions, one_of
from marginface.margins.ranges import cosine, non_negative, radians


class MagFace(Margin):
    """Target: cos(θ_y + m(a)), a = clip(‖x‖, l_a, u_a), m(a) linear from l_m to u_m; loss + λ_g·mean g(a).

    g(a) = a/u_a² + 1/a is in the loss, where it has a gradient. λ_g should be at least
    s·K·u_a²·l_a²/(u_a² − l_a²) with the slope K = (u_m − l_m)/(u_a − l_a): 22.6 at the defaults.

    Args:
        overflow: as in `ArcFace`; "easy" and "linear" are the authors' easy_margin True and False.
        target: "arc", or "cos" for cos θ_y − m(a) (Mag-CosFace; the authors give l_m 0.35, λ_g 150).
    """

    reads_norms = True
    norms_tell_quality = True

    def __init__(
        self,
        s: float = 64.0,
        l_a: float = 10.0,
        u_a: float = 110.0,
        l_m: float = 0.45,
        u_m: float = 0.8,
        lambda_g: float = 35.0,
        overflow: Overflow = "easy",
        target: Literal["arc", "cos"] = "arc",
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, **options)
        one_of("overflow", overflow, ("none", "clip", "linear", "easy"))
        one_of("target", target, ("arc", "cos"))
        if not 0 < l_a < u_a < math.inf:
            raise InputError(f"MagFace needs 0 < l_a < u_a, not l_a {l_a} and u_a {u_a}.")
        in_range = radians if target == "arc" else cosine
        self.l_a, self.u_a, self.l_m, self.u_m = l_a, u_a, in_range("l_m", l_m), in_range("u_m", u_m)
        self.lambda_g = non_negative("lambda_g", lambda_g)
        self.overflow: Overflow = overflow
        self.target_type = target

    def margins(self, norms_N: Tensor) -> Tensor:
        """m(a) of every row (N,)."""
        slope = (self.u_m - self.l_m) / (self.u_a - self.l_a)
        return slope * (norms_N.clamp(self.l_a, self.u_a) - self.l_a) + self.l_m

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        if self.target_type == "cos":
            return cos_N - self.margins(norms_N)
        return add_angle(cos_N, self.margins(norms_N), self.overflow)

    def regulariser(self, norms_N: Tensor) -> Tensor:
        a_N = norms_N.clamp(self.l_a, self.u_a)
        return self.lambda_g * (a_N / self.u_a**2 + 1 / a_N).sum() / max(1, len(a_N))
