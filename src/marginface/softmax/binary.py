"""SphereFace2 and UniFace over the N×C matrix: the reference for the block and shard engines.

Shape legend: N rows, C classes, D features.
"""

import torch
from torch import Tensor

from marginface.margins.binary import BinaryMargin
from marginface.softmax.dense import directions, normalise


def binary_logits(x_ND: Tensor, weight_CD: Tensor, labels_N: Tensor, margin: BinaryMargin) -> Tensor:
    """Binary logits (N, C): `positive` in the target column, `negative` elsewhere."""
    with torch.autocast(x_ND.device.type, enabled=False):
        return margin.forward(directions(x_ND)[0] @ normalise(weight_CD)[0].T, labels_N)


def binary_loss(x_ND: Tensor, weight_CD: Tensor, labels_N: Tensor, margin: BinaryMargin) -> Tensor:
    """Mean over the valid rows of the weighted binary cross-entropies summed over the classes."""
    return margin.loss(binary_logits(x_ND, weight_CD, labels_N, margin), labels_N)
