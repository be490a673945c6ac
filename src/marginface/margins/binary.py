"""What a loss without a softmax is: one yes-or-no question for every class, added up; asked by `softmax/`.

Shape legend: N rows (V valid), C classes.

    loss_i = positive_weight·softplus(−positive(cos_y)) + negative_weight·Σ_{j≠y} softplus(negative(cos_j))

and the mean over the valid rows. Nothing is shared between classes but the sum, so blocks and shards need no
maximum and no normaliser. `bias`, a parameter of shape (1,), is one learned threshold for all identities.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.margins.base import MarginGrad, at_least_float32, class_indices, one_of, valid_rows
from marginface.margins.ranges import share


class BinaryMargin(nn.Module):
    """Base of SphereFace2 and UniFace; they answer `positive`, `negative` and the two weights."""

    default_grad: ClassVar[MarginGrad] = "true"
    linear: ClassVar[bool] = False  # True: `bend_negative` only adds a constant

    def __init__(
        self,
        scale: float,
        bias: float,
        positive_weight: float,
        negative_weight: float,
        margin_grad: MarginGrad | None,
        interclass_filter: float,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.bias = nn.Parameter(torch.tensor([bias]))
        self.positive_weight, self.negative_weight = positive_weight, negative_weight
        self.margin_grad: MarginGrad = margin_grad or self.default_grad
        one_of("margin_grad", self.margin_grad, ("true", "straight_through"))
        self.interclass_filter = share("interclass_filter", interclass_filter)

    def forward(self, cos_NC: Tensor, labels_N: Tensor) -> Tensor:
        """Dense cosines to binary logits (N, C); rows labelled outside [0, C) are negative everywhere."""
        cos_NC, labels_N = at_least_float32(cos_NC), class_indices(labels_N, len(cos_NC))
        return torch.where(targets(labels_N, cos_NC), self.positive(cos_NC), self.negative(cos_NC))

    def loss(self, logits_NC: Tensor, labels_N: Tensor) -> Tensor:
        """The loss above for logits of `forward`; 0 where no row is valid."""
        terms_NC = torch.where(
            targets(labels_N, logits_NC),
            self.positive_weight * F.softplus(-logits_NC),
            self.negative_weight * F.softplus(logits_NC),
        )
        rows_V = valid_rows(labels_N, logits_NC.shape[1])
        return terms_NC[rows_V].sum() / max(1, len(rows_V))

    def positive(self, cos: Tensor) -> Tensor:
        """Logits of target cosines, any shape; elementwise."""
        return self._logits(cos, self.bend_positive(cos))

    def negative(self, cos: Tensor) -> Tensor:
        """Logits of the other cosines, any shape; elementwise. Those above `interclass_filter` count as 0."""
        if self.interclass_filter > 0:
            cos = torch.where(cos > self.interclass_filter, 0.0, cos)
        return self._logits(cos, self.bend_negative(cos))

    @property
    def written_out(self) -> bool:
        """Whether the derivative of `negative` is the scale alone, so that engines need not ask autograd for it."""
        return self.interclass_filter == 0 and (self.linear or self.margin_grad == "straight_through")

    def bend_positive(self, cos: Tensor) -> Tensor:
        raise NotImplementedError

    def bend_negative(self, cos: Tensor) -> Tensor:
        raise NotImplementedError

    def negatives_(self, products_TK: Tensor, offset_T1: Tensor, unit: float) -> Tensor:
        """products + offset, which are cosines, to `negative` times `unit`, in place and without gradient."""
        if self.interclass_filter == 0:
            return self.bend_negatives_(products_TK, offset_T1, unit)
        cos_TK = products_TK.add_(offset_T1)
        cos_TK.mul_((cos_TK <= self.interclass_filter).to(cos_TK.dtype))
        return self.bend_negatives_(cos_TK, torch.zeros_like(offset_T1), unit)

    def bend_negatives_(self, products_TK: Tensor, offset_T1: Tensor, unit: float) -> Tensor:
        """The same without the filter; every margin writes it out in as few passes as there can be."""
        raise NotImplementedError

    def _logits(self, cos: Tensor, bent: Tensor) -> Tensor:
        if self.margin_grad == "straight_through":
            bent = cos + (bent - cos).detach()
        return self.scale * bent + self.bias


def targets(labels_N: Tensor, like_NC: Tensor) -> Tensor:
    """Boolean (N, C): true in the column of the label."""
    return labels_N[:, None] == torch.arange(like_NC.shape[1], device=like_NC.device)
