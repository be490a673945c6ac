"""What several backbones share: their type, convolutions, squeeze-and-excitation, the float32 head."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

LARGE_LAYER = 1_000_000  # weights


class Backbone(nn.Module):
    """A network from normalised RGB images to embeddings.

    Call it with float (N, 3, *image_size) as `preprocess.normalise` makes it; it returns (N, num_features),
    not L2-normalised.
    """

    num_features: int
    image_size: tuple[int, int]  # height, width
    stem_parts: Sequence[str] = ()  # modules and parameters before the first block
    embedding_parts: Sequence[str] = ()  # children that make an embedding of the last map of features

    def __init__(self, num_features: int, image_size: tuple[int, int] = (112, 112)) -> None:
        super().__init__()
        self.num_features = num_features
        self.image_size = image_size

    def repeated(self) -> list[nn.Module]:
        """The blocks that nearly all of the network consists of, one after the other, none inside another.

        Each takes one tensor and returns one. They are the pieces that are recomputed, or split over processes.
        """
        return list(_members(self))

    def pieces(self) -> list[nn.Module]:
        """What is held at once when the weights are split over processes: a block, or a large layer outside of them."""
        own = list(self.modules())[1:]
        blocks = [block for block in self.repeated() if block in own]
        inside = {module for block in blocks for module in block.modules()}
        weights = {module: sum(p.numel() for p in module.parameters(recurse=False)) for module in own}
        return blocks + [module for module in own if module not in inside and weights[module] >= LARGE_LAYER]


def _members(module: nn.Module) -> Iterator[nn.Module]:
    """Members of sequences that are more than a layer."""
    sequences = nn.Sequential | nn.ModuleList
    for child in module.children():
        if isinstance(module, sequences) and not isinstance(child, sequences) and list(child.children()):
            yield child
        else:
            yield from _members(child)


def conv3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)


def conv1x1(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 1, stride, bias=False)


class SqueezeExcite(nn.Module):
    """Channels weighed by the whole map (Hu et al. 2018): pool, C -> C/r -> C, sigmoid, multiply."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = conv1x1(channels, channels // reduction)
        self.fc2 = conv1x1(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        weights: Tensor = self.fc2(self.fc1(pooled).relu()).sigmoid()
        return x * weights


def in_weight_precision(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Applies `layers` without autocast, in the dtype of their weights.

    The embedding head stays in float32 while the trunk runs in bf16: its sum over 25,088 values is where half
    precision would cost accuracy, and it is a hundredth of the work.
    """
    x = x.to(next(layers[0].parameters()).dtype)
    device = x.device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return _apply(layers, x)
    with torch.autocast(device, enabled=False):
        return _apply(layers, x)


def _apply(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): leaves out the whole branch for a random share of the images."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        kept = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * kept / keep


def kaiming_(model: nn.Module) -> None:
    """He et al. 2015, fan out, for every convolution and linear layer; zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
