"""ElasticFace (Boutros et al., CVPRW 2022, arXiv:2109.09416): a random margin for every sample."""

from typing import Literal, Unpack

import torch
from torch import Tensor

from marginface.margins.arcface import add_angle
from marginface.margins.base import CountsOnHost, Margin, MarginOptions, one_of
from marginface.margins.ranges import cosine, non_negative, radians

PlusMode = Literal["off", "paper", "released"]


class ElasticFace(CountsOnHost, Margin):
    """Draws m_i ~ N(m, std²), one for each valid row of the global batch, from (seed, step) alone.

    So the margins do not depend on the number of processes, nor on what else draws random numbers, and a
    resumed run draws what the uninterrupted one would have: `step` is a buffer that `update` advances.

    plus_mode: "paper" gives the largest margin to the smallest cosine (ElasticFace+); "released" indexes the
    sorted margins with the argsort instead of the rank, as the authors' code does, in effect at random.
    """

    step: Tensor

    def __init__(
        self,
        s: float,
        m: float,
        std: float,
        seed: int,
        plus_mode: PlusMode = "off",
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, **options)
        self.m, self.std, self.seed = m, non_negative("std", std), seed
        self.plus_mode: PlusMode = plus_mode
        self.register_buffer("step", torch.zeros((), dtype=torch.long, device="cpu"))

    def update(self, cos_y_N: Tensor, norms_N: Tensor) -> None:
        self.step += 1

    def sample(self, rows: int) -> Tensor:
        """The margins of this step (rows,), float64 on the CPU."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.step))
        return self.m + self.std * torch.randn(rows, generator=generator, dtype=torch.float64)

    def margins(self, cos_N: Tensor) -> Tensor:
        """The margin of every row (N,), assigned as `plus_mode` says."""
        m_N = self.sample(len(cos_N)).to(cos_N, non_blocking=True)
        if self.plus_mode == "off":
            return m_N
        ascending_N = m_N.sort().values
        order_N = cos_N.detach().argsort(descending=True)
        if self.plus_mode == "released":
            return ascending_N[order_N]
        return torch.empty_like(m_N).index_copy(0, order_N, ascending_N)


class ElasticFaceArc(ElasticFace):
    """Target: cos(θ_y + m_i)."""

    def __init__(
        self,
        s: float = 64.0,
        m: float = 0.5,
        std: float = 0.05,
        seed: int = 0,
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, radians("m", m), std, seed, **options)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return add_angle(cos_N, self.margins(cos_N))


class ElasticFaceCos(ElasticFace):
    """Target: cos θ_y − m_i."""

    def __init__(
        self,
        s: float = 64.0,
        m: float = 0.35,
        std: float = 0.05,
        seed: int = 0,
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, cosine("m", m), std, seed, **options)

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        return cos_N - self.margins(cos_N)


class ElasticFaceArcPlus(ElasticFaceArc):
    """ElasticFaceArc with the margins of a batch sorted by difficulty."""

    def __init__(
        self,
        s: float = 64.0,
        m: float = 0.5,
        std: float = 0.0175,
        seed: int = 0,
        plus_mode: PlusMode = "paper",
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, m, std, seed, **options)
        self.plus_mode = plus_mode
        one_of("plus_mode", plus_mode, ("off", "paper", "released"))


class ElasticFaceCosPlus(ElasticFaceCos):
    """ElasticFaceCos with the margins of a batch sorted by difficulty."""

    def __init__(
        self,
        s: float = 64.0,
        m: float = 0.35,
        std: float = 0.02,
        seed: int = 0,
        plus_mode: PlusMode = "paper",
        **options: Unpack[MarginOptions],
    ) -> None:
        super().__init__(s, m, std, seed, **options)
        self.plus_mode = plus_mode
        one_of("plus_mode", plus_mode, ("off", "paper", "released"))
