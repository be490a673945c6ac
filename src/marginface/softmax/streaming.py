"""The engine: a loss over blocks of classes, forward and backward, with no N×C tensor kept. Called by `head.py`.

Sharding and sampling are not other engines: a rank streams over the rows of the weight it owns, or that were
drawn, and a few numbers per row of the batch are summed over the ranks.

How a step goes (docs/softmax.md has the formulas):
1. target cosines from the class weights that are labels; the margin bends these V numbers under autograd;
2. forward pass: for every block one product and a few sums per row, e.g. Σ_{j≠y} exp(logit_j);
3. the loss is a function of vectors of one number per row, so autograd gives its derivative by each of them;
4. backward pass: for every block the product again, its derivative, two products for the gradients of x and W.

Shape legend: R rows of the global batch that take part, labelled ones first; V labelled rows; D features;
K classes of one block; B = K·sub_centers rows of the weight in one block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from marginface.margins.base import at_least_float32
from marginface.softmax.classes import Block, Classes, WeightSink
from marginface.softmax.dense import normalise
from marginface.softmax.kernels import inverse_norms, put_targets, through_norm
from marginface.softmax.objective import Objective
from marginface.softmax.sharded import Shards

PROBE = 512  # rows of the weight from which the height of a row's products is guessed


@dataclass(frozen=True)
class Step:
    """Everything about one step that is not differentiated."""

    objective: Objective
    classes: Classes
    shards: Shards
    column_V: Tensor  # the label as position among the classes taking part here; −1 where another rank has it
    product_dtype: torch.dtype
    normalised: bool  # False: raw products, nothing divided by the norms of the weights
    open_sink: Callable[[], WeightSink] | None  # None: the weights need no gradient


@dataclass(frozen=True)
class LeftFactor:
    """What every block is multiplied by: the rows x, times the scale if the objective wants that.

    bfloat16 products are rounded to 8 bits. So that this costs accuracy where it does not matter, a number near
    the row's highest product is subtracted before the rounding, inside the product, and added again after it: the
    error is then relative to the distance from the highest, and largest where exp is smallest.
    """

    x_RD: Tensor
    offset_R1: Tensor | None

    def times(self, unit_BD: Tensor) -> Tensor:
        """Products with the class weights (R, B), in float32 or wider."""
        if self.offset_R1 is None:
            return at_least_float32(self.x_RD @ unit_BD.T)
        return torch.addmm(-self.offset_R1, self.x_RD, unit_BD.T) + self.offset_R1.float()


@dataclass(frozen=True)
class Kept:
    """What the forward pass leaves to the backward pass besides x and the weight."""

    left: LeftFactor
    nearest_V: Tensor  # which sub-center of the target class is nearest
    inverse: Tensor | None  # 1 / ‖w‖ of every row of the weight that takes part


class StreamedLoss(torch.autograd.Function):
    """(x, norms, weight, bias, step, *parameters of the margin) -> (loss, target cosines).

    x are unit rows where the margin is `normalised`.
    """

    @staticmethod
    def forward(
        ctx: Any, x_RD: Tensor, norms_R: Tensor, weight: Tensor, bias: Tensor | None, step: Step, *_: Tensor
    ) -> tuple[Tensor, Tensor]:
        cos_V, nearest_V = target_cosines(x_RD[: len(step.column_V)], step)
        cos_y_V = step.shards.sum(cos_V)
        scale_R = step.objective.start(cos_y_V.clone(), norms_R)
        left, inverse = forward_pass(x_RD, scale_R, step)
        loss = step.objective.finish(step.shards)
        ctx.save_for_backward(x_RD, weight, bias)
        ctx.step, ctx.kept = step, Kept(left, nearest_V, inverse)
        ctx.mark_non_differentiable(cos_y_V)
        return loss, cos_y_V

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, step = ctx.saved_tensors[0], ctx.step
        with torch.autocast(x_RD.device.type, enabled=False):
            by_cos_y_V, by_norms_R, by_parameters = step.objective.differentiate(grad_loss)
            by_x_RD, by_weight, by_bias = backward_pass(x_RD, by_cos_y_V, ctx.kept, step)
        # The gradient by the norms is whole on every rank, that by x only this rank's part; both get summed.
        return by_x_RD, by_norms_R / step.shards.size, by_weight, by_bias, None, *by_parameters


def target_cosines(x_VD: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Cosines to the labels' own classes (V,), 0 where another rank owns them, and the nearest sub-centers."""
    classes = step.classes
    if len(classes) == 0:
        return x_VD.new_zeros(len(x_VD)), torch.zeros_like(step.column_V)
    rows_VS = classes.rows_of_columns(step.column_V.clamp_min(0))
    weight_BD = classes.weight[rows_VS.flatten()].to(x_VD.dtype)
    if step.normalised:
        weight_BD = normalise(weight_BD)[0]
    cos_VS = (x_VD[:, None] * weight_BD.view(*rows_VS.shape, x_VD.shape[1])).sum(2)
    if classes.bias is not None:
        cos_VS = cos_VS + classes.bias[rows_VS]
    cos_V, nearest_V = cos_VS.max(1)
    return torch.where(step.column_V >= 0, cos_V, 0.0), nearest_V


def forward_pass(x_RD: Tensor, scale_R: Tensor | None, step: Step) -> tuple[LeftFactor, Tensor | None]:
    """Show every block to the objective; returns the left factor and the inverse norms of all weights met."""
    classes = step.classes
    inverse = x_RD.new_empty(len(classes) * classes.sub_centers) if step.normalised else None
    left = LeftFactor(scaled(x_RD, scale_R).to(step.product_dtype), None)
    for block in classes.blocks():
        weight_BD = classes.read(block)
        if inverse is not None:
            inverse[classes.span(block)] = inverse_norms(weight_BD)
        unit_BD = unit_rows(weight_BD, inverse, block, step)
        if left.offset_R1 is None and step.product_dtype == torch.bfloat16:
            left = LeftFactor(left.x_RD, highest(left.x_RD, unit_BD[:PROBE], step.column_V * classes.sub_centers))
        cos_RK, _ = block_cosines(left, unit_BD, block, classes)
        step.objective.add(cos_RK, step.column_V - block.start)
    return left, inverse


def backward_pass(
    x_RD: Tensor, by_cos_y_V: Tensor, kept: Kept, step: Step
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients by x, weight (through the step's sink) and bias, as far as this rank's classes go."""
    classes, row_factor_R = step.classes, step.objective.row_factor_R
    target_V = by_cos_y_V if row_factor_R is None else ratio(by_cos_y_V, row_factor_R[: len(by_cos_y_V)])
    right_RD = scaled(x_RD, row_factor_R).to(step.product_dtype)
    by_x_RD = torch.zeros_like(x_RD)
    by_bias = None if classes.bias is None else torch.zeros_like(classes.bias)
    sink = step.open_sink() if step.open_sink else None
    for block in classes.blocks():
        weight_BD = classes.read(block)
        unit_BD = unit_rows(weight_BD, kept.inverse, block, step)
        cos_RK, nearest_RK = block_cosines(kept.left, unit_BD, block, classes)
        column_V = step.column_V - block.start
        by_cos_RB = step.objective.gradient(cos_RK, column_V)
        if nearest_RK is not None:
            by_cos_RB = spread(by_cos_RB, nearest_RK, classes.sub_centers)
        put_targets(by_cos_RB, column_V * classes.sub_centers + kept.nearest_V, target_V)
        if by_bias is not None:
            by_bias[block.rows] = scaled(by_cos_RB, row_factor_R).sum(0)
        by_cos_RB = by_cos_RB.to(step.product_dtype)
        by_x_RD += by_cos_RB @ unit_BD
        if sink is not None:
            by_weight_BD = (by_cos_RB.T @ right_RD).to(x_RD.dtype)
            if kept.inverse is not None:
                through_norm(by_weight_BD, weight_BD, kept.inverse[classes.span(block)])
            sink.put(block.rows, by_weight_BD)
    return scaled(by_x_RD, row_factor_R), sink.gradient() if sink else None, by_bias


def unit_rows(weight_BD: Tensor, inverse: Tensor | None, block: Block, step: Step) -> Tensor:
    """The weights of a block at unit length, in the dtype of the products."""
    if inverse is None:
        return weight_BD.to(step.product_dtype)
    unit_BD = torch.empty_like(weight_BD, dtype=step.product_dtype)
    return torch.mul(weight_BD, inverse[step.classes.span(block), None], out=unit_BD)


def highest(x_RD: Tensor, unit_BD: Tensor, column_V: Tensor) -> Tensor:
    """The highest product of every row with some classes other than its own (R, 1), in the dtype of the products."""
    products_RB = x_RD @ unit_BD.T
    put_targets(products_RB, column_V, float("-inf"))
    highest_R1 = products_RB.amax(1, keepdim=True)
    return torch.where(highest_R1.isinf(), 0.0, highest_R1)


def block_cosines(left: LeftFactor, unit_BD: Tensor, block: Block, classes: Classes) -> tuple[Tensor, Tensor | None]:
    """Cosines (R, K) of a block, times the scale if the left factor carries it; and the sub-centers chosen."""
    cos_RB = left.times(unit_BD)
    if classes.bias is not None:
        cos_RB += classes.bias[block.rows]
    if classes.sub_centers == 1:
        return cos_RB, None
    best = cos_RB.view(len(cos_RB), block.stop - block.start, classes.sub_centers).max(2)
    return best.values, best.indices


def spread(grad_RK: Tensor, nearest_RK: Tensor, sub_centers: int) -> Tensor:
    """Gradients of classes to their nearest sub-centers: (R, K) -> (R, K·sub_centers)."""
    grad_RKS = grad_RK.new_zeros((*grad_RK.shape, sub_centers))
    return grad_RKS.scatter_(2, nearest_RK[:, :, None], grad_RK[:, :, None]).flatten(1)


def scaled(values_RD: Tensor, factor_R: Tensor | None) -> Tensor:
    """Every row times its factor."""
    return values_RD if factor_R is None else values_RD * factor_R[:, None]


def ratio(a_V: Tensor, b_V: Tensor) -> Tensor:
    """a / b, and 0 where b is 0: a row whose loss no longer depends on other classes has no gradient at all."""
    return torch.where(b_V == 0, 0.0, a_V / torch.where(b_V == 0, 1.0, b_V))
