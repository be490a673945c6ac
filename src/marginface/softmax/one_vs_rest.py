"""Binary cross-entropy against every class (SphereFace2, UniFace) of one step, for the block loop of `streaming.py`.

Shape legend: V rows of the global batch, all labelled; K classes of one block.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.margins.binary import BinaryMargin
from marginface.softmax.kernels import put_targets
from marginface.softmax.sharded import Shards


@dataclass
class OneVsRest:
    """Weighted softplus of the target's logit and, summed, of all others'. No maximum, no normaliser."""

    margin: BinaryMargin
    row_factor_R: Tensor | None = field(default=None, init=False)

    def start(self, cos_y_V: Tensor, norms_R: Tensor) -> Tensor | None:
        self.cos_y_V, self.norms_R = cos_y_V.requires_grad_(), norms_R
        self.sums_AV = cos_y_V.new_zeros((2, len(cos_y_V)))  # Σ softplus(logit), and its derivative by the bias
        return None

    def add(self, cos_RK: Tensor, column_V: Tensor) -> None:
        logits_VK = self.margin.negative(cos_RK)
        put_targets(logits_VK, column_V, float("-inf"))
        self.sums_AV[0] += F.softplus(logits_VK).sum(1)
        self.sums_AV[1] += logits_VK.sigmoid_().sum(1)

    def finish(self, shards: Shards) -> Tensor:
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

    def gradient(self, cos_RK: Tensor, column_V: Tensor) -> Tensor:
        with torch.enable_grad():
            logits_VK = self.margin.negative(cos_RK.requires_grad_())
        grad_VK = logits_VK.detach().sigmoid().mul_(self.by_sums_V[:, None])
        put_targets(grad_VK, column_V, 0.0)
        by_cos_VK: Tensor = torch.autograd.grad(logits_VK, cos_RK, grad_VK)[0]
        return by_cos_VK
