"""Pixels to network input, on the network's device. For training, the embedder and the exports."""

import torch
from torch import Tensor


def normalise(images: Tensor, mean: float = 127.5, std: float = 127.5, dtype: torch.dtype = torch.float32) -> Tensor:
    """RGB uint8 (N, H, W, 3) to `dtype` (N, 3, H, W), (v - mean) / std, on the same device.

    The result is a view with channels_last strides: the layout the convolutions are fastest in, for free.
    The default is what InsightFace and its descendants use: [-1, 1].
    """
    return images.permute(0, 3, 1, 2).to(dtype).sub_(mean).div_(std)
