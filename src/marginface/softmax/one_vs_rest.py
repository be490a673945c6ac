"""Binary cross-entropy against every class (SphereFace2, UniFace) of one step, for the loop of `streaming.py`.

Shape legend: V rows of the global batch, all labelled; T rows of a tile; K classes of one block.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.margins.binary import BinaryMargin
from marginface.softmax.kernels import put_targets, row_tiles
from marginface.softmax.objective import BITS, Wanted
from marginface.softmax.sharded import Shards
from marginface.softmax.workspace import Workspace

LINEAR_BIT = 60.0  # beyond 2^60 softplus is the logit itself


@dataclass
class OneVsRest:
    """Weighted softplus of the target's logit and, summed, of all others'. No maximum, no normaliser."""

    margin: BinaryMargin
    workspace: Workspace
    row_factor_R: Tensor | None = field(default=None, init=False)

    def start(self, cos_y_V: Tensor, norms_R: Tensor) -> Wanted:
        self.cos_y_V, self.norms_R = cos_y_V.requires_grad_(), norms_R
        self.sums_AV = cos_y_V.new_zeros((2, len(cos_y_V)))  # Σ softplus(logit), and its derivative by the bias
        return Wanted()

    def add(self, products_RK: Tensor, offset_R: Tensor, column_V: Tensor) -> None:
        for rows in self._tiles(products_RK):
            bits_TK = self.workspace.get("powers", products_RK[rows].shape, offset_R)
            self.workspace.run(bits, self.margin, products_RK[rows], offset_R[rows, None], bits_TK)
            put_targets(bits_TK, column_V[rows], float("-inf"))
            spare_TK = self.workspace.spare("spare", bits_TK)
            self.workspace.run(add_answers, bits_TK, self.sums_AV[:, rows], spare_TK)

    def _tiles(self, products_RK: Tensor) -> Iterator[slice]:
        return row_tiles(products_RK, len(products_RK), whole=self.workspace.compiled)

    def finish(self, offset_R: Tensor, shards: Shards) -> Tensor:
        sums_V, by_bias_V = shards.sum(self.sums_AV).unbind()
        self.sums_V: Tensor = sums_V.requires_grad_()
        with torch.enable_grad():
            others_V = self.sums_V + by_bias_V * (self.margin.bias - self.margin.bias.detach())
            target_V = F.softplus(-self.margin.positive(self.cos_y_V))
            loss_V = self.margin.positive_weight * target_V + self.margin.negative_weight * others_V
            self.loss = loss_V.sum() / max(1, len(loss_V))
        return self.loss.detach()

    def differentiate(self, grad_loss: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        by_cos_y_V, self.by_sums_V, by_bias = torch.autograd.grad(
            self.loss, (self.cos_y_V, self.sums_V, self.margin.bias), grad_loss, retain_graph=True
        )
        return by_cos_y_V, torch.zeros_like(self.norms_R), (by_bias,)

    def backward_offset(self, offset_R: Tensor, dtype: torch.dtype) -> Tensor:
        self.row_factor_R = self.by_sums_V * self.margin.scale
        return offset_R

    def gradient(self, products_RK: Tensor, offset_R: Tensor, column_V: Tensor) -> None:
        for rows in self._tiles(products_RK):
            products_TK, offset_T1 = products_RK[rows], offset_R[rows, None]
            slope_TK = self._slope(products_TK, offset_T1)
            memory = None
            if not self.workspace.compiled:
                powers, spare = (self.workspace.get(name, products_TK.shape, offset_T1) for name in ("powers", "spare"))
                memory = powers, spare
            self.workspace.run(answer_gradient, self.margin, products_TK, offset_T1, slope_TK, memory)

    def contest(self) -> None:
        return None

    def _slope(self, products_TK: Tensor, offset_T1: Tensor) -> Tensor | None:
        """Derivative of the other classes' logits over the scale, None where it is 1."""
        if self.margin.written_out:
            return None
        with torch.enable_grad():
            cos_TK = (products_TK + offset_T1).requires_grad_()
            logits_TK = self.margin.negative(cos_TK)
        scale_TK = torch.full_like(cos_TK, 1 / self.margin.scale)
        return torch.autograd.grad(logits_TK, cos_TK, scale_TK)[0]


def bits(margin: BinaryMargin, products_TK: Tensor, offset_T1: Tensor, bits_TK: Tensor) -> None:
    """Logits of the other classes in bits."""
    margin.negatives_(bits_TK.copy_(products_TK), offset_T1, BITS)


def add_answers(bits_TK: Tensor, sums_AT: Tensor, spare_TK: Tensor | None) -> None:
    """Add to `sums` (2, T) what softplus of the logits comes to, and its derivative by the bias; uses up `bits`."""
    linear_T = torch.sub(bits_TK, LINEAR_BIT, out=spare_TK).clamp_min_(0).sum(1) / BITS
    powers_TK = bits_TK.clamp_max_(LINEAR_BIT).exp2_()
    sums_AT[0].add_(torch.log1p(powers_TK, out=spare_TK).sum(1).add_(linear_T))
    sums_AT[1].add_(probability(powers_TK, spare_TK).sum(1))


def probability(powers_TK: Tensor, spare_TK: Tensor | None) -> Tensor:
    """2^bits to the sigmoid, in place."""
    return powers_TK.div_(torch.add(powers_TK, 1, out=spare_TK))


def answer_gradient(
    margin: BinaryMargin,
    products_TK: Tensor,
    offset_T1: Tensor,
    slope_TK: Tensor | None,
    memory: tuple[Tensor, Tensor] | None,
) -> None:
    """Overwrite products with the sigmoid of their logits, times `slope`."""
    bits_TK, spare_TK = memory or (torch.empty_like(products_TK, dtype=offset_T1.dtype), None)
    bits(margin, products_TK, offset_T1, bits_TK)
    grad_TK = probability(bits_TK.clamp_max_(LINEAR_BIT).exp2_(), spare_TK)
    products_TK.copy_(grad_TK if slope_TK is None else grad_TK.mul_(slope_TK))
