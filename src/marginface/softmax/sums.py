"""Running log-sum-exp over blocks of classes; the forward pass of `streaming.py` adds one block after the other.

Shape legend: R rows, V of them labelled; K classes of one block; L = 3 leaves: target cosine, bent cosine, scale.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from marginface.softmax.kernels import put_targets
from marginface.softmax.sharded import Shards


@dataclass
class Others:
    """What a row's other classes amount to, over all blocks and ranks, and the derivatives by the row's leaves."""

    log_sum_R: Tensor  # log Σ_{j≠y} exp(logit_j)
    total_R: Tensor  # Σ_{j≠y} logit_j, for label smoothing
    log_sum_slope_LR: Tensor
    total_slope_LR: Tensor


class RunningSums:
    """Σ exp(logit − max) under a maximum that rises block by block, or under a constant where all logits are bounded."""

    def __init__(self, like_R: Tensor, shift: float | None, with_totals: bool) -> None:
        self.running = shift is None
        self.max_R = torch.full_like(like_R, torch.finfo(like_R.dtype).min / 2 if shift is None else shift)
        self.sums_AR = like_R.new_zeros((4, len(like_R)))  # the sum, then its derivatives by the leaves
        self.totals_AR = torch.zeros_like(self.sums_AR)
        self.with_totals = with_totals

    def add(self, logits_RK: Tensor, column_V: Tensor, leaves_LR: tuple[Tensor, ...] = ()) -> None:
        """Add a block, whose memory is used up; `column_V` are the target columns, which are left out.

        Where the logits are differentiable in the leaves, the derivatives of both sums are added up as well.
        """
        values_RK = logits_RK.detach()
        differentiable = logits_RK.requires_grad
        if self.with_totals:
            put_targets(values_RK, column_V, values_RK.new_zeros(len(column_V)))
            self.totals_AR[0] += values_RK.sum(1)
            if differentiable:
                ones_RK = torch.ones_like(values_RK)
                put_targets(ones_RK, column_V, values_RK.new_zeros(len(column_V)))
                self.totals_AR[1:] += slopes(logits_RK, leaves_LR, ones_RK, keep=True)
        put_targets(values_RK, column_V, values_RK.new_full((len(column_V),), float("-inf")))
        if self.running:
            self._raise_to(torch.maximum(self.max_R, values_RK.amax(1)))
        values_RK.sub_(self.max_R[:, None]).exp_()
        self.sums_AR[0] += values_RK.sum(1)
        if differentiable:
            self.sums_AR[1:] += slopes(logits_RK, leaves_LR, values_RK, keep=False)

    def finish(self, shards: Shards) -> Others:
        """The sums over all ranks."""
        if self.running:
            self._raise_to(shards.max(self.max_R.clone()))
        sums_AR, totals_AR = shards.sum(torch.cat((self.sums_AR, self.totals_AR))).split(4)
        return Others(
            sums_AR[0].log() + self.max_R,
            totals_AR[0],
            sums_AR[1:] / sums_AR[0].clamp_min(torch.finfo(sums_AR.dtype).tiny),
            totals_AR[1:],
        )

    def _raise_to(self, max_R: Tensor) -> None:
        self.sums_AR *= (self.max_R - max_R).exp()
        self.max_R = max_R


def slopes(logits_RK: Tensor, leaves_LR: tuple[Tensor, ...], weight_RK: Tensor, *, keep: bool) -> Tensor:
    """Σ_j weight_ij · d logit_ij / d leaf_i, for every leaf (L, R)."""
    wanted = [leaf for leaf in leaves_LR if leaf.requires_grad]
    grads = iter(
        torch.autograd.grad(logits_RK, wanted, weight_RK, keep, allow_unused=True, materialize_grads=True)
    )
    return torch.stack([next(grads) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in leaves_LR])
