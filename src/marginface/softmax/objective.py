"""Softmax cross-entropy of one step, as the block loop of `streaming.py` needs it.

An objective takes the target cosines, then the cosines of all classes block by block, and gives the loss; after
that, for every block again, the derivative of the loss by the cosines. `one_vs_rest.py` is the other objective.

Shape legend: R rows of the global batch that take part, labelled ones first; V labelled rows; K classes of one
block. `column_V` is the label as column of the block; values outside [0, K) are not in this block.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from marginface.margins.base import Margin
from marginface.softmax.dense import focal
from marginface.softmax.kernels import put_targets
from marginface.softmax.sharded import Shards

HIGHEST_LOSS = 69.07755278982137  # −log 1e-30: PartialFC_V2 reports no larger loss for a row
WIDEST_SHIFT = 70.0  # exp(±70)·1e7 is a normal float32: scales up to 70 need no running maximum


class Objective(Protocol):
    """What the block loop asks of a loss, in this order; one object for each step."""

    def start(self, cos_y_V: Tensor, norms_R: Tensor) -> Tensor | None:
        """Bend the target cosines. Returns a scale (R,) that the cosines of every block shall carry already."""

    def add(self, cos_RK: Tensor, column_V: Tensor) -> None:
        """Take a block of cosines, whose memory may be used up."""

    def finish(self, shards: Shards) -> Tensor:
        """The loss, after all blocks of all ranks."""

    def differentiate(self, grad_loss: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Derivatives by the target cosines (V,), the norms (R,) and the margin's own parameters.

        From now on `row_factor` (R,) is known: what every row of `gradient` has still to be multiplied by.
        """

    def gradient(self, cos_RK: Tensor, column_V: Tensor) -> Tensor:
        """Derivative by the cosines of a block, target columns to be ignored; memory of the cosines is used up."""

    @property
    def row_factor_R(self) -> Tensor | None: ...


@dataclass
class CrossEntropy:
    """−log softmax of the target's logit, with any margin, label smoothing and focal weighting."""

    margin: Margin
    num_columns: int  # classes taking part on all ranks
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    partial_fc: bool = False  # rows without label count, as all negatives; no row reports more than −log 1e-30
    row_factor_R: Tensor | None = field(default=None, init=False)

    @property
    def general(self) -> bool:
        """Whether a block needs more than exp of its scaled cosines."""
        return self.margin.bends_negatives or self.margin.scale_from_norm or self.label_smoothing > 0

    def start(self, cos_y_V: Tensor, norms_R: Tensor) -> Tensor | None:
        self.num_labelled = len(cos_y_V)
        self.cos_y_V, self.norms_R = cos_y_V.requires_grad_(), norms_R.detach().requires_grad_()
        if self.margin.training and self.num_labelled:
            self.margin.update(cos_y_V.detach(), norms_R[: self.num_labelled].detach())
        with torch.enable_grad():
            self.bent_V = self.margin.target(self.cos_y_V, self.norms_R[: self.num_labelled])
            self.scale_R = self.margin.row_scale(self.norms_R)
        shift = self._shift()
        self.running = shift is None
        lowest = torch.finfo(norms_R.dtype).min / 2
        self.max_R = torch.full_like(norms_R, lowest if shift is None else shift)
        self.sums_AR = norms_R.new_zeros((2, len(norms_R)))  # Σ exp(logit − max), and its derivative by the scale
        self.totals_AR = torch.zeros_like(self.sums_AR)  # Σ logit, and its derivative by the scale
        return None if self.general else self.scale_R.detach()

    def _shift(self) -> float | None:
        """A constant in place of the running maximum, where every logit lies within ±scale and scale ≤ 70."""
        fixed_scale = type(self.margin).row_scale is Margin.row_scale
        if self.general or not self.margin.normalised or not fixed_scale or self.margin.scale > WIDEST_SHIFT:
            return None
        return self.margin.scale - WIDEST_SHIFT

    def add(self, cos_RK: Tensor, column_V: Tensor) -> None:
        if self.general:
            cos_RK = self._bent(cos_RK)
            logits_RK = self.scale_R.detach()[:, None] * cos_RK
        else:
            logits_RK = cos_RK
        if self.label_smoothing > 0:
            put_targets(logits_RK, column_V, 0.0)
            self.totals_AR[0] += logits_RK.sum(1)
        put_targets(logits_RK, column_V, float("-inf"))
        if self.running:
            self._raise_to(torch.maximum(self.max_R, logits_RK.amax(1)))
        exp_RK = logits_RK.sub_(self.max_R[:, None]).exp_()
        self.sums_AR[0] += exp_RK.sum(1)
        if self.margin.scale_from_norm:
            put_targets(cos_RK, column_V, 0.0)
            self.totals_AR[1] += cos_RK.sum(1)
            self.sums_AR[1] += exp_RK.mul_(cos_RK).sum(1)

    def _bent(self, cos_RK: Tensor) -> Tensor:
        """The other classes' cosines after the margin; rows without label are only cleaned: they have no target."""
        num_labelled = self.num_labelled
        cos_y_V, bent_V = self.cos_y_V.detach(), self.bent_V.detach()
        bent_RK = self.margin.negatives(cos_RK[:num_labelled], cos_y_V, bent_V)
        if num_labelled < len(cos_RK):
            bent_RK = torch.cat((bent_RK, self.margin.clean(cos_RK[num_labelled:])))
        return bent_RK

    def _raise_to(self, max_R: Tensor) -> None:
        self.sums_AR *= (self.max_R - max_R).exp()
        self.max_R = max_R

    def finish(self, shards: Shards) -> Tensor:
        if self.running:
            self._raise_to(shards.max(self.max_R.clone()))
        sums_R, by_scale_R, totals_R, total_by_scale_R = shards.sum(torch.cat((self.sums_AR, self.totals_AR)))
        self.log_sum_R = (sums_R.log() + self.max_R).requires_grad_()
        self.total_R = totals_R.requires_grad_()
        if self.margin.training and self.margin.observes_others:
            self.margin.observe(self.log_sum_R.detach()[: self.num_labelled])
        by_scale_R = by_scale_R / sums_R.clamp_min(torch.finfo(sums_R.dtype).tiny)
        with torch.enable_grad():
            change_R = self.scale_R - self.scale_R.detach()  # 0, but carries the derivative by the scale
            self.loss = self._mean(self.log_sum_R + by_scale_R * change_R, self.total_R + total_by_scale_R * change_R)
        return self.loss.detach()

    def _mean(self, log_sum_R: Tensor, total_R: Tensor) -> Tensor:
        num_labelled = self.num_labelled
        target_V = self.scale_R[:num_labelled] * self.bent_V
        loss_V = torch.logaddexp(log_sum_R[:num_labelled] - target_V, torch.zeros_like(target_V))
        if self.label_smoothing > 0:
            mean_V = (total_R[:num_labelled] + target_V) / self.num_columns
            loss_V = loss_V + self.label_smoothing * (target_V - mean_V)
        loss_V = focal(loss_V, self.focal_gamma)
        regulariser = self.margin.regulariser(self.norms_R[:num_labelled])
        if not self.partial_fc:
            return loss_V.sum() / max(1, num_labelled) + regulariser
        pushed_U = log_sum_R[num_labelled:]
        reported_R = torch.cat((loss_V.clamp_max(HIGHEST_LOSS), torch.full_like(pushed_U, HIGHEST_LOSS)))
        loss_R = torch.cat((loss_V, pushed_U))
        return (loss_R + (reported_R - loss_R).detach()).sum() / max(1, len(loss_R)) + regulariser

    def differentiate(self, grad_loss: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        parameters = tuple(self.margin.parameters())
        leaves = (self.cos_y_V, self.norms_R, self.log_sum_R, self.total_R, *parameters)
        by_cos_y_V, by_norms_R, self.by_log_sum_R, self.by_total_R, *by_parameters = torch.autograd.grad(
            self.loss, leaves, grad_loss, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        if not self.general:
            self.row_factor_R = self.by_log_sum_R * self.scale_R.detach()
        return by_cos_y_V, by_norms_R, tuple(by_parameters)

    def gradient(self, cos_RK: Tensor, column_V: Tensor) -> Tensor:
        log_sum_R1 = self.log_sum_R.detach()[:, None]
        if not self.general:
            return cos_RK.sub_(log_sum_R1).exp_()
        with torch.enable_grad():
            bent_RK = self._bent(cos_RK.requires_grad_())
        scale_R1 = self.scale_R.detach()[:, None]
        grad_RK = (bent_RK.detach() * scale_R1).sub_(log_sum_R1).exp_()
        grad_RK.mul_(self.by_log_sum_R[:, None]).add_(self.by_total_R[:, None]).mul_(scale_R1)
        put_targets(grad_RK, column_V, 0.0)
        by_cos_RK: Tensor = torch.autograd.grad(bent_RK, cos_RK, grad_RK)[0]
        return by_cos_RK
