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

from marginface.softmax.classes import Block, Classes, Piece, WeightSink
from marginface.softmax.dense import normalise
from marginface.softmax.kernels import (
    highest,
    measure_rows,
    product,
    put_targets,
    radial_part,
    ratio,
    rounded_inside,
    scaled,
    shorten_rows,
)
from marginface.softmax.objective import Objective, Wanted
from marginface.softmax.sharded import Shards
from marginface.softmax.workspace import Workspace

PROBE = 512  # rows of the weight from which the height of a row's products is guessed


@dataclass(frozen=True)
class Step:
    """Everything about one step that is not differentiated."""

    objective: Objective
    classes: Classes
    shards: Shards
    column_V: Tensor  # the label as position among the classes taking part here; −1 where another rank has it
    product_dtype: torch.dtype
    rounded: bool  # float32 products may round what they multiply
    normalised: bool  # False: raw products, nothing divided by the norms of the weights
    open_sink: Callable[[], WeightSink] | None  # None: the weights need no gradient
    workspace: Workspace


@dataclass(frozen=True)
class LeftFactor:
    """What every block is multiplied by, and what is subtracted from the products.

    bfloat16 products are rounded to 8 bits. So that this costs accuracy where it does not matter, a number near
    the row's highest product is subtracted inside the product, before the rounding: the error is then relative to
    the distance from it, and largest where exp is smallest.
    """

    x_RD: Tensor
    offset_R: Tensor  # exactly representable in the dtype of the products
    bias: Tensor | None

    def times(self, unit_BD: Tensor, span: slice, workspace: Workspace) -> Tensor:
        """Products with class weights, plus bias, minus offset (R, B); in memory that the next call overwrites."""

        def memory() -> Tensor:
            return workspace.get("products", (len(self.x_RD), len(unit_BD)), self.x_RD)

        if self.x_RD.dtype == torch.bfloat16:
            products_RB = memory().copy_(-self.offset_R[:, None]).addmm_(self.x_RD, unit_BD.T)
        else:
            products_RB = product(self.x_RD, unit_BD, memory).sub_(self.offset_R[:, None])
        return products_RB if self.bias is None else products_RB.add_(self.bias[span])


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
        wanted = step.objective.start(cos_y_V.clone(), norms_R)
        with rounded_inside(step.rounded, x_RD.device):
            left, inverse = forward_pass(x_RD, wanted, step)
        loss = step.objective.finish(left.offset_R, step.shards)
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
            with rounded_inside(step.rounded, x_RD.device):
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


def forward_pass(x_RD: Tensor, wanted: Wanted, step: Step) -> tuple[LeftFactor, Tensor | None]:
    """Show every block to the objective; returns the left factor and the inverse norms of all weights met."""
    classes = step.classes
    inverse = x_RD.new_empty(len(classes) * classes.sub_centers) if step.normalised else None
    left = left_factor(x_RD, wanted, step)
    for block in classes.blocks():
        weight_BD = classes.read(block, step.workspace)
        unit_BD = unit_rows(weight_BD, inverse, block, step, measure_rows)
        if block.start == 0 and step.product_dtype == torch.bfloat16:
            left = guess_offset(left, unit_BD, wanted.floor, step)
        products_RK, _ = block_products(left, unit_BD, block, step)
        step.objective.add(products_RK, left.offset_R, step.column_V - block.start)
    return left, inverse


def backward_pass(
    x_RD: Tensor, by_cos_y_V: Tensor, kept: Kept, step: Step
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients by x, weight (through the step's sink) and bias, as far as this rank's classes go."""
    classes, objective, dtype = step.classes, step.objective, step.product_dtype
    offset_R = objective.backward_offset(kept.left.offset_R, dtype)
    row_factor_R = objective.row_factor_R
    left = LeftFactor(kept.left.x_RD, offset_R, kept.left.bias)
    right_RD = scaled(x_RD, row_factor_R).to(dtype)
    target_V = by_cos_y_V if row_factor_R is None else ratio(by_cos_y_V, row_factor_R[: len(by_cos_y_V)])
    by_x_RD = torch.zeros_like(x_RD)
    by_bias = None if classes.bias is None else torch.zeros_like(classes.bias)
    sink = step.open_sink() if step.open_sink else None
    for block in classes.blocks():
        weight_BD = classes.read(block, step.workspace)
        unit_BD = unit_rows(weight_BD, kept.inverse, block, step, shorten_rows)
        grad_RB, nearest_RK = block_products(left, unit_BD, block, step)
        column_V = step.column_V - block.start
        objective.gradient(grad_RB, offset_R, column_V)
        if nearest_RK is not None:
            put_targets(grad_RB, column_V, 0.0)  # rounding may have chosen another sub-center than `nearest_V`
            grad_RB = spread(grad_RB, nearest_RK, classes.sub_centers)
        put_targets(grad_RB, column_V * classes.sub_centers + kept.nearest_V, target_V)
        if by_bias is not None:
            by_bias[block.rows] = scaled(grad_RB, row_factor_R).sum(0)
        accumulate(by_x_RD, grad_RB, unit_BD, step.workspace)
        if sink is not None:
            inverse_B = None if kept.inverse is None else kept.inverse[classes.span(block)]
            send(sink, block, grad_RB, right_RD, weight_BD, inverse_B, step.workspace)
    return scaled(by_x_RD, row_factor_R), sink.gradient() if sink else None, by_bias


def left_factor(x_RD: Tensor, wanted: Wanted, step: Step) -> LeftFactor:
    """Rows as the objective wants them, with the lowest offset."""
    factor_RD = scaled(x_RD, None if wanted.scale_R is None else wanted.scale_R * wanted.unit)
    bias = step.classes.bias
    if bias is not None:
        bias = (
            bias if step.classes.index_S is None else bias[step.classes.rows_of(step.classes.index_S).flatten()]
        ) * wanted.unit
    return LeftFactor(factor_RD.to(step.product_dtype), x_RD.new_full((len(x_RD),), wanted.floor or 0.0), bias)


def guess_offset(left: LeftFactor, unit_BD: Tensor, floor: float | None, step: Step) -> LeftFactor:
    """The left factor with offsets near the highest product of each row with some of the classes."""
    offset_R = highest(left.x_RD, unit_BD[:PROBE], step.column_V * step.classes.sub_centers)
    offset_R = offset_R.clamp_min(floor) if floor is not None else offset_R
    return LeftFactor(left.x_RD, offset_R.to(step.product_dtype).to(left.offset_R.dtype), left.bias)


def unit_rows(
    weight_BD: Tensor, inverse: Tensor | None, block: Block, step: Step, shorten: Callable[..., None]
) -> Tensor:
    """The weights of a block at unit length, in the dtype of the products."""
    workspace = step.workspace
    unit_BD = workspace.get("unit", weight_BD.shape, weight_BD, step.product_dtype)
    if inverse is None:
        return unit_BD.copy_(weight_BD)
    inverse_B = inverse[step.classes.span(block)]
    for tile in workspace.tiles(weight_BD):
        weight_TD, unit_TD = weight_BD[tile], unit_BD[tile]
        in_place = unit_BD.dtype == weight_BD.dtype and not workspace.compiled
        spare_TD = unit_TD if in_place else workspace.spare("tile", weight_TD)
        workspace.run(shorten, weight_TD, inverse_B[tile], unit_TD, spare_TD)
    return unit_BD


def block_products(left: LeftFactor, unit_BD: Tensor, block: Block, step: Step) -> tuple[Tensor, Tensor | None]:
    """Products (R, K) with the classes of a block minus the offset, and the sub-centers chosen."""
    products_RB = left.times(unit_BD, step.classes.span(block), step.workspace)
    if step.classes.sub_centers == 1:
        return products_RB, None
    best = products_RB.view(len(products_RB), block.stop - block.start, step.classes.sub_centers).max(2)
    return best.values, best.indices


def spread(grad_RK: Tensor, nearest_RK: Tensor, sub_centers: int) -> Tensor:
    """Gradients of classes to their nearest sub-centers: (R, K) -> (R, K·sub_centers)."""
    grad_RKS = grad_RK.new_zeros((*grad_RK.shape, sub_centers))
    return grad_RKS.scatter_(2, nearest_RK[:, :, None], grad_RK[:, :, None]).flatten(1)


def accumulate(by_x_RD: Tensor, grad_RB: Tensor, unit_BD: Tensor, workspace: Workspace) -> None:
    """Add a block's part of the gradient by x; sums are kept in the dtype of x."""
    part_RD = product(grad_RB, unit_BD.T, lambda: workspace.get("by_x", by_x_RD.shape, grad_RB))
    if part_RD.dtype != by_x_RD.dtype:  # torch adds two types one number at a time
        part_RD = workspace.get("wide", by_x_RD.shape, by_x_RD).copy_(part_RD)
    by_x_RD += part_RD


def send(
    sink: WeightSink,
    block: Block,
    grad_RB: Tensor,
    right_RD: Tensor,
    weight_BD: Tensor,
    inverse_B: Tensor | None,
    workspace: Workspace,
) -> None:
    """A block's gradient by the weight, tile by tile, so that all that is done to a tile finds it in cache."""
    by_unit_BD = torch.mm(grad_RB.T, right_RD, out=workspace.get("by_unit", weight_BD.shape, grad_RB))
    for tile in workspace.tiles(weight_BD):
        weight_TD, by_unit_TD = weight_BD[tile], by_unit_BD[tile]
        if by_unit_TD.dtype != weight_TD.dtype and not workspace.compiled:
            by_unit_TD = workspace.get("tile", weight_TD.shape, weight_TD).copy_(by_unit_TD)
        spare = None if workspace.compiled else by_unit_TD
        inverse_T = radial_T = None
        if inverse_B is not None:
            inverse_T, spare_TD = inverse_B[tile], workspace.spare("scratch", weight_TD)
            radial_T = workspace.run(radial_part, by_unit_TD, weight_TD, inverse_T, spare_TD)
        sink.put(block.part(tile), Piece(by_unit_TD, weight_TD, inverse_T, radial_T, spare))
