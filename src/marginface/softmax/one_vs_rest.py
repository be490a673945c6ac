"""Binary cross-entropy against every class (SphereFace2, UniFace) of one step, for the loop of `streaming.py`.

Shape legend: V rows of the global batch, all labelled; T rows of a tile; K classes of one block.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.margins.binary import BinaryMargin
from marginface.softmax.kernels import put_targets, tiles
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
        for rows in tiles(products_RK):
            bits_TK = self._bits(products_RK[rows], offset_R[rows, None])
            put_targets(bits_TK, column_V[rows], float("-inf"))
            spare_TK = self.workspace.get("spare", bits_TK.shape, bits_TK)
            linear_T = torch.sub(bits_TK, LINEAR_BIT, out=spare_TK).clamp_min_(0).sum(1) / BITS
            powers_TK = bits_TK.clamp_max_(LINEAR_BIT).exp2_()
            self.sums_AV[0, rows] += torch.log1p(powers_TK, out=spare_TK).sum(1) + linear_T
            self.sums_AV[1, rows] += self._probability(powers_TK).sum(1)

    def _bits(self, products_TK: Tensor, offset_T1: Tensor) -> Tensor:
        """Logits of the other classes in bits."""
        wide_TK = self.workspace.get("powers", products_TK.shape, offset_T1).copy_(products_TK)
        return self.margin.negatives_(wide_TK, offset_T1, BITS)

    def _probability(self, powers_TK: Tensor) -> Tensor:
        """2^bits to the sigmoid, in place."""
        spare_TK = self.workspace.get("spare", powers_TK.shape, powers_TK)
        return powers_TK.div_(torch.add(powers_TK, 1, out=spare_TK))

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
        for rows in tiles(products_RK):
            slope_TK = self._slope(products_RK[rows], offset_R[rows, None])
            grad_TK = self._probability(
                self._bits(products_RK[rows], offset_R[rows, None]).clamp_max_(LINEAR_BIT).exp2_()
            )
            products_RK[rows] = grad_TK if slope_TK is None else grad_TK.mul_(slope_TK)

    def contest(self) -> None:
        return None

    def _slope(self, products_TK: Tensor, offset_T1: Tensor) -> Tensor | None:
        """Derivative of the bent cosines, None where it is 1 or taken for it."""
        if self.margin.linear or self.margin.margin_grad == "straight_through":
            return None
        with torch.enable_grad():
            cos_TK = (products_TK + offset_T1).requires_grad_()
            bent_TK = self.margin.bend_negative(cos_TK)
        return torch.autograd.grad(bent_TK, cos_TK, torch.ones_like(bent_TK))[0]
