"""Softmax cross-entropy of one step, as the block loop of `streaming.py` needs it.

An objective takes the target cosines, then products of all classes block by block, and gives the loss; after that,
for every block again, the derivative of the loss. `one_vs_rest.py` is the other objective.

Shape legend: R rows of the global batch that take part, labelled ones first; V labelled rows; T rows of a tile;
K classes of one block. `column_V` is the label as column of the block; outside [0, K) it is not in this block.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from marginface.margins.base import Margin
from marginface.softmax.bending import Own, add_powers, bend, bent_gradient
from marginface.softmax.dense import focal
from marginface.softmax.kernels import put_targets, row_tiles
from marginface.softmax.sharded import Shards
from marginface.softmax.workspace import Workspace

HIGHEST_LOSS = 69.07755278982137  # −log 1e-30: PartialFC_V2 reports no larger loss for a row
BITS = math.log2(math.e)  # logits are counted in bits: exp2 takes a third of the time of exp
WIDEST_SCALE = 70.0  # up to here 2^(±logit − floor) stays within float32's normal range,
HIGHEST_BIT = 100.0  # also the sum over 1e7 classes
ROUNDING = 32.0  # bits; where log-sums are rounded by more, probabilities are noise, but embeddings must not overflow


class Wanted(NamedTuple):
    """How an objective wants the products of x and the class weights."""

    scale_R: Tensor | None = None  # rows of x times this
    unit: float = 1.0  # everything times this
    floor: float | None = None  # at least this subtracted


class Contest(NamedTuple):
    """What decides the loss of every labelled row, each (V,): scale·target, the target bent, against the others."""

    targets_V: Tensor
    scales_V: Tensor
    others_V: Tensor  # log Σ_{j≠y} exp(logit_j)


class Objective(Protocol):
    """What the block loop asks of a loss, in this order; one object for each step.

    Products come with an offset (R,) already subtracted; their memory may be used up.
    """

    row_factor_R: Tensor | None  # after `differentiate`: what `gradient` has still to be multiplied by

    def start(self, cos_y_V: Tensor, norms_R: Tensor) -> Wanted:
        """Bend the target cosines."""

    def add(self, products_RK: Tensor, offset_R: Tensor, column_V: Tensor) -> None:
        """Take a block of products."""

    def finish(self, offset_R: Tensor, shards: Shards) -> Tensor:
        """The loss, after all blocks of all ranks."""

    def differentiate(self, grad_loss: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Derivatives by the target cosines (V,), the norms (R,) and the margin's own parameters."""

    def backward_offset(self, offset_R: Tensor, dtype: torch.dtype) -> Tensor:
        """What to subtract from the products for `gradient`, rounded to `dtype`, instead of `offset`."""

    def gradient(self, products_RK: Tensor, offset_R: Tensor, column_V: Tensor) -> None:
        """Overwrite a block with the derivative by its cosines, but for the target columns."""

    def contest(self) -> Contest | None:
        """After `finish`; None where classes do not compete."""


@dataclass
class CrossEntropy:
    """−log softmax of the target's logit, with any margin, label smoothing and focal weighting."""

    margin: Margin
    workspace: Workspace
    num_columns: int | Tensor  # classes taking part on all ranks
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    partial_fc: bool = False  # rows without label count, as all negatives; no row reports more than −log 1e-30
    row_factor_R: Tensor | None = field(default=None, init=False)

    @property
    def general(self) -> bool:
        """Whether a block needs more than exp of its scaled cosines."""
        return self.margin.bends_negatives or self.margin.scale_from_norm or self.label_smoothing > 0

    @property
    def bounded(self) -> bool:
        """Whether every logit is known to lie within ±scale ≤ 70, so that no running maximum is needed."""
        fixed_scale = type(self.margin).row_scale is Margin.row_scale
        return self.margin.normalised and fixed_scale and self.margin.scale <= WIDEST_SCALE and not self.general

    def start(self, cos_y_V: Tensor, norms_R: Tensor) -> Wanted:
        self.num_labelled = len(cos_y_V)
        self.cos_y_V, self.norms_R = cos_y_V.requires_grad_(), norms_R.detach().requires_grad_()
        if self.margin.training and self.num_labelled:
            self.margin.update(cos_y_V.detach(), norms_R[: self.num_labelled].detach())
        with torch.enable_grad():
            self.bent_V = self.margin.target(self.cos_y_V, self.norms_R[: self.num_labelled])
            self.scale_R = self.margin.row_scale(self.norms_R)
        lowest = 0.0 if self.bounded else torch.finfo(norms_R.dtype).min / 2
        self.top_R = torch.full_like(norms_R, lowest)  # running maximum
        self.sums_AR = norms_R.new_zeros((2, len(norms_R)))  # Σ 2^(logit − top), and its derivative by the scale
        self.totals_AR = torch.zeros_like(self.sums_AR)  # Σ logit, and its derivative by the scale
        if self.general:
            return Wanted()
        floor = self.margin.scale * BITS - HIGHEST_BIT if self.bounded else None
        return Wanted(self.scale_R.detach(), BITS, floor)

    def add(self, products_RK: Tensor, offset_R: Tensor, column_V: Tensor) -> None:
        if self.general:
            for rows in self._tiles(products_RK):
                self._add_bent(products_RK[rows], offset_R[rows, None], column_V[rows], rows)
            return
        put_targets(products_RK, column_V, float("-inf"))
        powers_RK = products_RK
        if products_RK.dtype != offset_R.dtype:
            powers_RK = self.workspace.get("powers", products_RK.shape, offset_R).copy_(products_RK)
        if self.bounded:
            self.sums_AR[0] += powers_RK.exp2_().sum(1)
        else:
            add_powers(powers_RK, self.top_R, self.sums_AR)

    def _add_bent(self, products_TK: Tensor, offset_T1: Tensor, column_T: Tensor, rows: slice) -> None:
        factor_T1, by_norm = self.scale_R.detach()[rows, None] * BITS, self.margin.scale_from_norm
        bent_TK = self.workspace.get("powers", products_TK.shape, offset_T1)
        spare_TK = self.workspace.spare("spare", bent_TK)
        own, factor = self._own(rows), None if by_norm else factor_T1
        self.workspace.run(bend, self.margin, products_TK, offset_T1, own, factor, bent_TK, spare_TK, None)
        bits_TK = bent_TK
        if by_norm:
            bits_TK = self.workspace.get("slope", bent_TK.shape, bent_TK).copy_(bent_TK).mul_(factor_T1)
        if self.label_smoothing > 0:
            put_targets(bits_TK, column_T, 0.0)
            self.totals_AR[0, rows] += bits_TK.sum(1) / BITS
        put_targets(bits_TK, column_T, float("-inf"))
        self.workspace.run(add_powers, bits_TK, self.top_R[rows], self.sums_AR[:, rows])
        if by_norm:
            put_targets(bent_TK, column_T, 0.0)
            self.totals_AR[1, rows] += bent_TK.sum(1)
            self.sums_AR[1, rows] += bits_TK.mul_(bent_TK).sum(1)

    def _tiles(self, products_RK: Tensor) -> Iterator[slice]:
        return row_tiles(products_RK, self.num_labelled, whole=self.workspace.compiled)

    def _own(self, rows: slice) -> Own | None:
        if rows.start >= self.num_labelled:
            return None
        return Own(self.cos_y_V.detach()[rows], self.bent_V.detach()[rows])

    def finish(self, offset_R: Tensor, shards: Shards) -> Tensor:
        top_R = self.top_R if self.general else self.top_R + offset_R
        highest_R = shards.max(top_R.clone())
        sums_AR = shards.sum(torch.cat((self.sums_AR * (top_R - highest_R).exp2(), self.totals_AR)))
        sums_R, by_scale_R, totals_R, total_by_scale_R = sums_AR.unbind()
        self.log_sum_R = ((sums_R.log2() + highest_R) / BITS).requires_grad_()
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
        leaves = (self.cos_y_V, self.norms_R, self.log_sum_R, self.total_R, *self.margin.parameters())
        by_cos_y_V, by_norms_R, self.by_log_sum_R, self.by_total_R, *by_parameters = torch.autograd.grad(
            self.loss, leaves, grad_loss, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return by_cos_y_V, by_norms_R, tuple(by_parameters)

    def backward_offset(self, offset_R: Tensor, dtype: torch.dtype) -> Tensor:
        if self.general:
            self.row_factor_R = self.scale_R.detach()
            if self.label_smoothing == 0:
                self.row_factor_R = self.row_factor_R * self.by_log_sum_R
            return offset_R
        bits_R = self.log_sum_R.detach().clamp_min(-1e4) * BITS  # −inf where there is no other class
        rounded_R = bits_R.to(dtype).to(bits_R.dtype)
        self.certain_R = (bits_R - rounded_R).clamp(-ROUNDING, ROUNDING)  # where the probability is 1
        self.row_factor_R = self.by_log_sum_R * self.scale_R.detach() * (-self.certain_R).exp2()
        return rounded_R

    def gradient(self, products_RK: Tensor, offset_R: Tensor, column_V: Tensor) -> None:
        if not self.general:
            if not self.bounded:
                # long logits are rounded by more than a bit
                products_RK.clamp_max_(self.certain_R[:, None].to(products_RK.dtype))
            products_RK.exp2_()  # the probability, but for the row factor
            return
        for rows in self._tiles(products_RK):
            self._bent_gradient(products_RK[rows], offset_R[rows, None], rows)

    def contest(self) -> Contest:
        rows_V = slice(0, self.num_labelled)
        return Contest(self.bent_V.detach(), self.scale_R.detach()[rows_V], self.log_sum_R.detach()[rows_V])

    def _bent_gradient(self, products_TK: Tensor, offset_T1: Tensor, rows: slice) -> None:
        scale_T1, log_sum_T1 = self.scale_R.detach()[rows, None], self.log_sum_R.detach()[rows, None]
        smoothing = None
        if self.label_smoothing > 0:
            smoothing = self.by_log_sum_R[rows, None], self.by_total_R[rows, None]
        memory = None
        if not self.workspace.compiled:
            powers, spare, slope = (
                self.workspace.get(name, products_TK.shape, offset_T1) for name in ("powers", "spare", "slope")
            )
            memory = powers, spare, slope
        bits_T1 = scale_T1 * BITS, log_sum_T1 * BITS
        own = self._own(rows)
        self.workspace.run(bent_gradient, self.margin, products_TK, offset_T1, own, *bits_T1, smoothing, memory)
