"""The reference engine: plain autograd over the N×C matrix, short and obviously right.

`head.logits()` shows it and every other engine is tested against it, in float64.

Shape legend: N rows (V valid), C classes, S sub-centres, D features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.margins.base import Margin, at_least_float32, valid_rows


def normalise(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to unit length: (N, D) -> unit rows (N, D) and norms (N,), both differentiable, float32 or wider.

    Any norm from 1e-12 to 1e38 gives its direction without overflow; smaller rows are divided by 1e-12, so a
    zero row stays zero and the gradient is finite.
    """
    x_ND = at_least_float32(x_ND)
    size_N1 = x_ND.detach().abs().amax(1, keepdim=True).clamp_min(1e-12)
    scaled_ND = x_ND / size_N1
    norm_N1 = torch.linalg.vector_norm(scaled_ND, dim=1, keepdim=True)
    unit_ND = scaled_ND / torch.where(norm_N1 < 1, 1.0, norm_N1)  # below 1 only where the row is below 1e-12
    return unit_ND, (norm_N1 * size_N1).squeeze(1)


def directions(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """`normalise` for embeddings: a row shorter than 1e-12 has no direction, and so no gradient.

    Divided by 1e-12 it would be infinite in float16, and in float32 one such row would undo the whole training.
    """
    unit_ND, norms_N = normalise(x_ND)
    return torch.where(norms_N.detach()[:, None] < 1e-12, unit_ND.detach(), unit_ND), norms_N


def dense_products(
    x_ND: Tensor, weight_CD: Tensor, margin: Margin, bias_C: Tensor | None = None, sub_centers: int = 1
) -> tuple[Tensor, Tensor]:
    """Cosines (N, C) (raw products where the margin is not `normalised`) and norms of x (N,).

    With S = sub_centers > 1 the weight is (C·S, D), the S rows of a class adjacent, and the cosine of a class
    is the largest of its S (Sub-center ArcFace, Deng et al., ECCV 2020, eq. 3).
    """
    with torch.autocast(x_ND.device.type, enabled=False):
        unit_ND, norms_N = directions(x_ND)
        if margin.normalised:
            cos_NC = unit_ND @ normalise(weight_CD)[0].T
        else:
            cos_NC = F.linear(at_least_float32(x_ND), at_least_float32(weight_CD), bias_C)
        if sub_centers > 1:
            cos_NC = cos_NC.view(len(cos_NC), -1, sub_centers).amax(2)
    return cos_NC, norms_N


def dense_logits(
    x_ND: Tensor,
    weight_CD: Tensor,
    labels_N: Tensor,
    margin: Margin,
    *,
    bias_C: Tensor | None = None,
    sub_centers: int = 1,
) -> Tensor:
    """Scaled logits (N, C) after the margin; rows labelled outside [0, C) without margin.

    In training mode of the margin its adaptive state advances by one step.
    """
    cos_NC, norms_N = dense_products(x_ND, weight_CD, margin, bias_C, sub_centers)
    return margin.forward(cos_NC, labels_N, norms_N)


def dense_loss(
    x_ND: Tensor,
    weight_CD: Tensor,
    labels_N: Tensor,
    margin: Margin,
    *,
    bias_C: Tensor | None = None,
    sub_centers: int = 1,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Mean loss over the valid rows plus the margin's regulariser; 0 where no row is valid."""
    cos_NC, norms_N = dense_products(x_ND, weight_CD, margin, bias_C, sub_centers)
    logits_NC = margin(cos_NC, labels_N, norms_N)
    rows_V = valid_rows(labels_N, logits_NC.shape[1])
    loss_V = F.cross_entropy(logits_NC[rows_V], labels_N[rows_V], reduction="none", label_smoothing=label_smoothing)
    return focal(loss_V, focal_gamma).sum() / max(1, len(rows_V)) + margin.regulariser(norms_N[rows_V])


def focal(loss_V: Tensor, gamma: float) -> Tensor:
    """Focal weighting (1 − p)^γ·loss with p = exp(−loss) (Lin et al., ICCV 2017, eq. 4; usual γ 2)."""
    if gamma == 0:
        return loss_V
    wrong_V = -torch.expm1(-loss_V)
    return torch.where(wrong_V > 1e-12, wrong_V, 1e-12) ** gamma * loss_V  # 0^(γ−1) is infinite for γ < 1
