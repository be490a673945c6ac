"""Binary cross-entropy against every class (SphereFace2, UniFace) of one step, for the loop of `streaming.py`.

Shape legend: V rows of the global batch, all labelled; T rows of a tile; K classes of one block.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.margins.binary import BinaryMargin
from marginface.softmax.kernels import put_targets, tiles
from marginface.softmax.objective import Wanted
from marginface.softmax.sharded import Shards


@dataclass
class OneVsRest:
    """Weighted softplus of the target's logit and, summed, of all others'. No maximum, no normaliser."""

    margin: BinaryMargin
    row_factor_R: Tensor | None = field(default=None, init=False)

    def start(self, cos_y_V: Tensor, norms_R: Tensor) -> Wanted:
        self.cos_y_V, self.norms_R = cos_y_V.requires_grad_(), norms_R
        self.sums_AV = cos_y_V.new_zeros((2, len(cos_y_V)))  # Σ softplus(logit), and its derivative by the bias
        return Wanted()

    def add(self, products_RK: Tensor, offset_R: Tensor, column_V: Tensor) -> None:
        for rows in tiles(products_RK):
            logits_TK = self.margin.negative(products_RK[rows] + offset_R[rows, None])
            put_targets(logits_TK, column_V[rows], float("-inf"))
            self.sums_AV[0, rows] += F.softplus(logits_TK).sum(1)
            self.sums_AV[1, rows] += logits_TK.sigmoid_().sum(1)

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
        return offset_R

    def gradient(self, products_RK: Tensor, offset_R: Tensor, column_V: Tensor) -> None:
        for rows in tiles(products_RK):
            with torch.enable_grad():
                cos_TK = (products_RK[rows] + offset_R[rows, None]).requires_grad_()
                logits_TK = self.margin.negative(cos_TK)
            grad_TK = logits_TK.detach().sigmoid().mul_(self.by_sums_V[rows, None])
            put_targets(grad_TK, column_V[rows], 0.0)
            products_RK[rows] = torch.autograd.grad(logits_TK, cos_TK, grad_TK)[0]
