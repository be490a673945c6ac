"""Passes over the products of a margin that bends the other classes' cosines too; run for `objective.py`.

Written so that they run operation by operation in memory that is handed in, or compiled, where what is handed in as
None never reaches memory. Shape legend: T rows of a tile, all labelled or none; K classes of one block.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from marginface.margins.base import Margin


class Own(NamedTuple):
    """The cosines of rows to their own classes, before and after the margin, each (T,)."""

    cos_y_T: Tensor
    bent_T: Tensor


def bend(
    margin: Margin,
    products_TK: Tensor,
    offset_T1: Tensor,
    own: Own | None,
    factor_T1: Tensor | None,
    cos_TK: Tensor,
    spare_TK: Tensor | None,
    slope_TK: Tensor | None,
) -> None:
    """Products plus offset, which are cosines, into `cos`, after the margin and times `factor`.

    The margin's derivative goes into `slope` where that is given. Rows without label (`own` None) are only cleaned:
    they have no target.
    """
    cos_TK.copy_(products_TK).add_(offset_T1)
    if margin.bends_negatives:
        spare_TK = torch.empty_like(cos_TK) if spare_TK is None else spare_TK
        if own is None:
            margin.clean_(cos_TK, spare_TK, slope_TK)
        else:
            margin.negatives_(cos_TK, own.cos_y_T, own.bent_T, spare_TK, slope_TK)
    if factor_T1 is not None:
        cos_TK.mul_(factor_T1)


def add_powers(bits_TK: Tensor, top_T: Tensor, sums_AT: Tensor) -> None:
    """Logits to powers of two over the row's running maximum `top`, which they raise; their sum to `sums[0]`.

    What `sums` (A, T) held before is brought to the new maximum.
    """
    raised_T = torch.maximum(top_T, bits_TK.amax(1))
    sums_AT.mul_((top_T - raised_T).exp2())
    top_T.copy_(raised_T)
    sums_AT[0].add_(bits_TK.sub_(raised_T[:, None]).exp2_().sum(1))


def bent_gradient(
    margin: Margin,
    products_TK: Tensor,
    offset_T1: Tensor,
    own: Own | None,
    factor_T1: Tensor,
    log_sum_T1: Tensor,
    smoothing: tuple[Tensor, Tensor] | None,
    memory: tuple[Tensor, Tensor, Tensor] | None,
) -> None:
    """Overwrite products with 2^(cosine after the margin · factor − log_sum) times the margin's derivative.

    smoothing: what the power is multiplied by, and what is added to it, each (T, 1).
    """
    cos_TK, spare_TK, slope_TK = memory or (torch.empty_like(products_TK, dtype=offset_T1.dtype) for _ in range(3))
    bend(margin, products_TK, offset_T1, own, factor_T1, cos_TK, spare_TK, slope_TK)
    bits_TK = cos_TK.sub_(log_sum_T1)
    if margin.scale_from_norm or not margin.normalised:
        bits_TK.clamp_max_(0)  # a probability, however coarse the rounding of long logits
    grad_TK = bits_TK.exp2_()
    if smoothing is not None:
        grad_TK.mul_(smoothing[0]).add_(smoothing[1])
    if margin.bends_negatives:
        grad_TK.mul_(slope_TK)
    products_TK.copy_(grad_TK)
