"""A network for small training sets: it is given oriented gradients and need not learn them. For `lfw-scratch`."""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.backbones.blocks import Backbone, conv3x3, in_weight_precision
from marginface.backbones.iresnet import Block

LEVELS = (4, 2, 1)  # of a pyramid, with the cells in pixels of each level: all give 28×28 cells
ORIENTATIONS = 8
NOISE = 1e-4  # gradients below it are nobody's


class OrientedGradients(nn.Module):
    """Grey value gradients by direction and scale, pooled over cells and freed of local contrast; nothing learned.

    Float (N, 3, H, W) in [-1, 1] -> float32 (N, 24, H/4, W/4) in [0, 1): at three levels of a binomial pyramid the
    gradient magnitude in eight directions (Dalal and Triggs 2005), shared with cos³ of the angle instead of bins,
    each cell divided by the energy of its 5×5 surroundings, square root taken (Hellinger).
    """

    directions: Tensor

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(ORIENTATIONS) * (2 * math.pi / ORIENTATIONS)
        self.register_buffer("directions", torch.stack([angles.cos(), angles.sin()])[..., None, None], persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        # bf16 would round away most of the difference between neighbouring pixels
        device = images.device.type
        exact = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
        with exact:
            rgb = images.to(self.directions.dtype)
            grey = ((0.299 * rgb[:, :1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:]) / 2).contiguous()
            levels = []
            for cell in LEVELS:
                grey = _smooth(grey, (1, 4, 6, 4, 1))
                levels.append(F.avg_pool2d(self._magnitudes(grey), cell))
                grey = F.avg_pool2d(grey, 2)
            return _without_contrast(_smooth(torch.cat(levels, 1), (1, 2, 1)))

    def _magnitudes(self, grey: Tensor) -> Tensor:
        """Gradient magnitudes by direction: (N, 1, H, W) -> (N, 8, H, W)."""
        # counted in NOISE, so that what keeps the quotient finite is 1: exporters take 1e-8 for nothing and drop it
        grey = F.pad(grey / NOISE, (1,) * 4, mode="replicate")
        x = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2]
        y = grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
        along = (x * self.directions[0] + y * self.directions[1]).clamp(min=0)
        return NOISE * along**3 / (x**2 + y**2 + 1)


def _smooth(x: Tensor, weights: tuple[int, ...]) -> Tensor:
    """Weighted mean of neighbours across and down, borders repeated."""
    r, total = len(weights) // 2, sum(weights)
    width, height = x.shape[3], x.shape[2]
    padded = F.pad(x, (r, r, 0, 0), mode="replicate")
    x = torch.stack([(w / total) * padded[:, :, :, i : i + width] for i, w in enumerate(weights)]).sum(0)
    padded = F.pad(x, (0, 0, r, r), mode="replicate")
    return torch.stack([(w / total) * padded[:, :, i : i + height] for i, w in enumerate(weights)]).sum(0)


def _without_contrast(cells: Tensor) -> Tensor:
    """Each level's directions divided by their energy in the 5×5 surroundings; square root."""
    by_level = cells.reshape(cells.shape[0], len(LEVELS), ORIENTATIONS, *cells.shape[2:])
    energy = F.avg_pool2d(F.pad(by_level.square().sum(2), (2,) * 4, mode="replicate"), 5, 1).sqrt()
    return (by_level / (energy.unsqueeze(2) + 0.003) + 1e-6).sqrt().flatten(1, 2)


class DownBlock(Block):
    """A residual block at half the resolution from its first convolution on: half the products of `Block`'s."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 2, se=False)
        self.conv1 = conv3x3(in_channels, channels, 2)
        self.conv2 = conv3x3(channels, channels)


class GradientNet(Backbone):
    """Oriented gradients beside a few learned colour filters, then residual blocks from 28×28 to 7×7.

    Reaches with a few thousand photographs what a network on pixels needs many more for. width: channels at
    28×28, doubled at 14×14 and again at 7×7. colours: learned 7×7 colour filters. dropout: before the embedding.
    """

    stem_parts = ("colours", "stem")
    embedding_parts = ("bn", "dropout", "fc", "features")

    def __init__(self, num_features: int = 256, width: int = 64, colours: int = 16, dropout: float = 0.4) -> None:
        super().__init__(num_features)
        self.gradients = OrientedGradients()
        self.colours = nn.Conv2d(3, colours, 7, 4, 3, bias=False)
        channels = len(LEVELS) * ORIENTATIONS + colours
        self.stem = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
        )
        self.trunk = nn.Sequential(
            Block(width, width, 1, se=False),
            DownBlock(width, 2 * width),
            Block(2 * width, 2 * width, 1, se=False),
            DownBlock(2 * width, 4 * width),
        )
        self.bn = nn.BatchNorm2d(4 * width)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * width * 7 * 7, num_features, bias=False)
        self.features = nn.BatchNorm1d(num_features, affine=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.kaiming_normal_(self.fc.weight, nonlinearity="linear")

    def forward(self, images: Tensor) -> Tensor:
        x = torch.cat([self.gradients(images), self.colours(images)], 1)
        x = self.trunk(self.stem(x))
        return in_weight_precision((self.fc, self.features), self.dropout(self.bn(x)).flatten(1))
