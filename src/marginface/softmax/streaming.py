"""The engine: softmax loss over blocks of classes, forward and backward, with no N×C tensor kept. Called by `head.py`.

Sharding and sampling are not other engines: a rank streams over the rows of the weight it owns, or that were drawn,
and a few numbers per row of the batch are summed over the ranks.

How a step goes (docs/softmax.md has the formulas):
1. target cosines from the class weights that are labels; the margin bends these V numbers under autograd;
2. forward pass: for every block one product, exp and row sums, giving log Σ_{j≠y} exp(logit_j);
3. the loss is a function of V-sized vectors, so autograd gives its derivative by each of them;
4. backward pass: for every block the product again, its derivative, two products for the gradients of x and W.

Shape legend: R rows of the global batch that take part, labelled ones first; V labelled rows; D features;
K classes of one block; B = K·sub_centers rows of the weight in one block; L leaves that the negatives depend on.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from marginface.softmax.dense import focal, normalise
from marginface.softmax.kernels import inverse_norms, put_targets, remove_radial
from marginface.softmax.step import Block, Step, Targets
from marginface.softmax.sums import Others, RunningSums

HIGHEST_LOSS = 69.07755278982137  # −log 1e-30: PartialFC_V2 reports no larger loss for a row
Gradients = tuple[Tensor, Tensor | None, Tensor | None]  # by x, weight, bias
Leaves = tuple[Tensor, ...]  # target cosine, bent cosine and scale, each (R,)


class Slopes(NamedTuple):
    """Derivatives of the loss by the numbers it was computed from."""

    cos_y_V: Tensor
    log_sum_R: Tensor
    total_R: Tensor
    norms_R: Tensor


class StreamedLoss(torch.autograd.Function):
    """(rows, norms, weight, bias) -> (loss, target cosines); rows are unit rows where the margin is `normalised`."""

    @staticmethod
    def forward(
        ctx: Any, x_RD: Tensor, norms_R: Tensor, weight: Tensor, bias: Tensor | None, step: Step
    ) -> tuple[Tensor, Tensor]:
        targets = bend_targets(x_RD, norms_R, step)
        others, inverse = forward_pass(x_RD, targets, step)
        if step.margin.training and step.margin.observes_others:
            step.margin.observe(others.log_sum_R[: step.num_labelled])
        others.log_sum_R.requires_grad_()
        others.total_R.requires_grad_()
        with torch.enable_grad():
            loss = mean_loss(targets, others, step)
        ctx.save_for_backward(x_RD, weight, bias)
        ctx.state = targets, others, inverse, loss, step
        cos_y_V = targets.cos_y_V.detach()
        ctx.mark_non_differentiable(cos_y_V)
        return loss.detach(), cos_y_V

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x_RD = ctx.saved_tensors[0]
        targets, others, inverse, loss, step = ctx.state
        leaves = (targets.cos_y_V, others.log_sum_R, others.total_R, targets.norms_R)
        with torch.autocast(x_RD.device.type, enabled=False):
            slopes = Slopes(
                *torch.autograd.grad(loss, leaves, grad_loss, True, allow_unused=True, materialize_grads=True)
            )
            grad_x_RD, grad_weight, grad_bias = backward_pass(x_RD, targets, others, inverse, slopes, step)
        # Every rank has the whole gradient by the norms but only its classes' part of the one by x; both get summed.
        return grad_x_RD, slopes.norms_R / step.shards.size, grad_weight, grad_bias, None


def bend_targets(x_RD: Tensor, norms_R: Tensor, step: Step) -> Targets:
    """Step 1. The rank that owns a label's class finds its cosine."""
    margin = step.margin
    cos_V, nearest_V = target_cosines(x_RD[: step.num_labelled], step)
    cos_y_V = step.shards.sum(cos_V).requires_grad_()
    norms_R = norms_R.detach().requires_grad_()
    if margin.training and step.num_labelled:
        margin.update(cos_y_V.detach(), norms_R[: step.num_labelled].detach())
    with torch.enable_grad():
        bent_V = margin.target(cos_y_V, norms_R[: step.num_labelled])
        scale_R = margin.row_scale(norms_R)
    return Targets(cos_y_V, norms_R, bent_V, scale_R, nearest_V)


def target_cosines(x_VD: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Cosines to the labels' own classes (V,), 0 where another rank owns the class, and the nearest sub-centers."""
    classes = step.classes
    if len(classes) == 0:
        return x_VD.new_zeros(len(x_VD)), torch.zeros_like(step.column_V)
    column_V = step.column_V.clamp_min(0)
    rows_VS = classes.rows_of(column_V if classes.index_S is None else classes.index_S[column_V])
    weight_BD = classes.weight[rows_VS.flatten()].to(x_VD.dtype)
    if step.margin.normalised:
        weight_BD = normalise(weight_BD)[0]
    cos_VS = (x_VD[:, None] * weight_BD.unflatten(0, rows_VS.shape)).sum(2)
    if classes.bias is not None:
        cos_VS = cos_VS + classes.bias[rows_VS]
    cos_V, nearest_V = cos_VS.max(1)
    return torch.where(step.column_V >= 0, cos_V, 0.0), nearest_V


def mean_loss(targets: Targets, others: Others, step: Step) -> Tensor:
    """Step 3: the loss as a function of the leaves of `targets` and `others`."""
    num_labelled = step.num_labelled
    target_V = targets.scale_R[:num_labelled] * targets.bent_V
    leaves_LV = torch.stack((targets.cos_y_V, targets.bent_V, targets.scale_R[:num_labelled]))
    change_LV = leaves_LV - leaves_LV.detach()  # 0, but carries the derivative of the negatives by the target
    log_sum_V = others.log_sum_R[:num_labelled] + (others.log_sum_slope_LR[:, :num_labelled] * change_LV).sum(
        0
    )
    loss_V = torch.logaddexp(log_sum_V - target_V, torch.zeros_like(target_V))
    if step.label_smoothing > 0:
        total_V = (
            others.total_R[:num_labelled]
            + (others.total_slope_LR[:, :num_labelled] * change_LV).sum(0)
            + target_V
        )
        loss_V = loss_V + step.label_smoothing * (target_V - total_V / step.num_columns)
    loss_V = focal(loss_V, step.focal_gamma)
    regulariser = step.margin.regulariser(targets.norms_R[:num_labelled])
    if not step.partial_fc:
        return loss_V.sum() / max(1, num_labelled) + regulariser
    capped_V = loss_V + (loss_V.clamp_max(HIGHEST_LOSS) - loss_V).detach()
    pushed_U = others.log_sum_R[num_labelled:]
    unlabelled_U = HIGHEST_LOSS + (pushed_U - pushed_U.detach())
    return torch.cat((capped_V, unlabelled_U)).sum() / max(1, len(others.log_sum_R)) + regulariser


def forward_pass(x_RD: Tensor, targets: Targets, step: Step) -> tuple[Others, Tensor | None]:
    """Step 2: Σ exp(logit) over the other classes, and the inverse norms of the weights met on the way."""
    classes = step.classes
    leaves_LR = live_leaves(targets, step)
    factor_RD = product_factor(x_RD, targets, step)
    sums = RunningSums(targets.norms_R.detach(), step.shift, with_totals=step.label_smoothing > 0)
    inverse = x_RD.new_empty(len(classes) * classes.sub_centers) if step.margin.normalised else None
    for block in classes.blocks():
        weight_BD = classes.read(block)
        if inverse is not None:
            inverse[classes.span(block)] = inverse_norms(weight_BD)
        cos_RK, _ = block_cosines(factor_RD, weight_BD, inverse, block, step)
        with torch.set_grad_enabled(any(leaf.requires_grad for leaf in leaves_LR)):
            logits_RK = block_logits(cos_RK, leaves_LR, step) if step.general else cos_RK
        sums.add(logits_RK, step.column_V - block.start, leaves_LR)
    return sums.finish(step.shards), inverse


def backward_pass(
    x_RD: Tensor, targets: Targets, others: Others, inverse: Tensor | None, slopes: Slopes, step: Step
) -> Gradients:
    """Step 4: gradients by x, weight (through the step's sink) and bias, of this rank's classes."""
    classes = step.classes
    row_factor_R = None if step.general else slopes.log_sum_R * targets.scale_R.detach()
    target_V = target_entries(slopes.cos_y_V, row_factor_R)
    factor_RD = product_factor(x_RD, targets, step)
    right_RD = (x_RD if row_factor_R is None else x_RD * row_factor_R[:, None]).to(step.product_dtype)
    grad_x_RD = torch.zeros_like(x_RD)
    grad_bias = None if classes.bias is None else torch.zeros_like(classes.bias)
    sink = step.open_sink() if step.open_sink else None
    for block in classes.blocks():
        weight_BD = classes.read(block)
        cos_RK, nearest_RK = block_cosines(factor_RD, weight_BD, inverse, block, step)
        grad_RK = block_gradient(cos_RK, targets, others, slopes, block, step)
        grad_RB = grad_RK if nearest_RK is None else spread(grad_RK, nearest_RK, classes.sub_centers)
        put_targets(
            grad_RB, (step.column_V - block.start) * classes.sub_centers + targets.nearest_V, target_V
        )
        if grad_bias is not None:
            grad_bias[block.rows] = grad_RB.sum(0) if row_factor_R is None else row_factor_R @ grad_RB
        if inverse is not None:
            grad_RB *= inverse[classes.span(block)]
        grad_RB = grad_RB.to(step.product_dtype)
        grad_x_RD += grad_RB @ weight_BD.to(step.product_dtype)
        if sink is not None:
            grad_BD = (grad_RB.T @ right_RD).to(x_RD.dtype)
            if inverse is not None:
                remove_radial(grad_BD, weight_BD, inverse[classes.span(block)])
            sink.put(block.rows, grad_BD)
    if row_factor_R is not None:
        grad_x_RD *= row_factor_R[:, None]
    return grad_x_RD, sink.gradient() if sink else None, grad_bias


def product_factor(x_RD: Tensor, targets: Targets, step: Step) -> Tensor:
    """The left factor of a block's product; where nothing bends the cosines it carries the scale already."""
    scaled_RD = x_RD if step.general else x_RD * targets.scale_R.detach()[:, None]
    return scaled_RD.to(step.product_dtype)


def block_cosines(
    factor_RD: Tensor, weight_BD: Tensor, inverse: Tensor | None, block: Block, step: Step
) -> tuple[Tensor, Tensor | None]:
    """Cosines (R, K) of a block, or raw products, or already logits (see `product_factor`); and the sub-centers chosen."""
    raw_RB = factor_RD @ weight_BD.to(factor_RD.dtype).T
    if inverse is not None:
        cos_RB = torch.mul(raw_RB, inverse[step.classes.span(block)])
    else:
        cos_RB = raw_RB.to(weight_BD.dtype)
    if step.classes.bias is not None:
        cos_RB += step.classes.bias[block.rows]
    if step.classes.sub_centers == 1:
        return cos_RB, None
    best = cos_RB.unflatten(1, (-1, step.classes.sub_centers)).max(2)
    return best.values, best.indices


def block_logits(cos_RK: Tensor, leaves_LR: Leaves, step: Step) -> Tensor:
    """Cosines to the logits of other classes; rows without label are only cleaned, as they have no target."""
    num_labelled, (cos_y_R, bent_R, scale_R) = step.num_labelled, leaves_LR
    bent_RK = step.margin.negatives(cos_RK[:num_labelled], cos_y_R[:num_labelled], bent_R[:num_labelled])
    if num_labelled < len(cos_RK):
        bent_RK = torch.cat((bent_RK, step.margin.clean(cos_RK[num_labelled:])))
    return scale_R[:, None] * bent_RK


def live_leaves(targets: Targets, step: Step) -> Leaves:
    """What the other classes' logits may depend on, one number a row: target cosine, bent cosine, scale."""
    cos_y_R, bent_R = (
        pad(values_V.detach(), len(targets.scale_R)) for values_V in (targets.cos_y_V, targets.bent_V)
    )
    scale_R = targets.scale_R.detach().clone()
    bends = step.margin.bends_negatives
    return (
        cos_y_R.requires_grad_(bends),
        bent_R.requires_grad_(bends),
        scale_R.requires_grad_(step.margin.scale_from_norm),
    )


def block_gradient(
    cos_RK: Tensor, targets: Targets, others: Others, slopes: Slopes, block: Block, step: Step
) -> Tensor:
    """Derivative of the loss by the cosines of a block, up to the row factor where nothing bends them."""
    log_sum_R1 = others.log_sum_R.detach()[:, None]
    if not step.general:
        return cos_RK.sub_(log_sum_R1).exp_()
    leaves_LR = tuple(leaf.detach() for leaf in live_leaves(targets, step))
    with torch.enable_grad():
        logits_RK = block_logits(cos_RK.requires_grad_(), leaves_LR, step)
    grad_RK = (
        (logits_RK.detach() - log_sum_R1).exp_().mul_(slopes.log_sum_R[:, None]).add_(slopes.total_R[:, None])
    )
    put_targets(grad_RK, step.column_V - block.start, torch.zeros_like(targets.bent_V))
    return torch.autograd.grad(logits_RK, cos_RK, grad_RK)[0]


def target_entries(slope_V: Tensor, row_factor_R: Tensor | None) -> Tensor:
    """What stands in the target's place of a block gradient: the loss by the target cosine, over the row factor."""
    if row_factor_R is None:
        return slope_V
    factor_V = row_factor_R[: len(slope_V)]
    return torch.where(factor_V == 0, 0.0, slope_V / torch.where(factor_V == 0, 1.0, factor_V))


def spread(grad_RK: Tensor, nearest_RK: Tensor, sub_centers: int) -> Tensor:
    """Gradients of classes to their nearest sub-centers: (R, K) -> (R, K·sub_centers)."""
    grad_RKS = grad_RK.new_zeros((*grad_RK.shape, sub_centers))
    return grad_RKS.scatter_(2, nearest_RK[:, :, None], grad_RK[:, :, None]).flatten(1)


def pad(values_V: Tensor, length: int) -> Tensor:
    """Zeros for the rows without label."""
    return torch.cat((values_V, values_V.new_zeros(length - len(values_V))))
