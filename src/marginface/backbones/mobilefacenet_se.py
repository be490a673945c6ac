"""The MobileFaceNet of OpenVINO's training toolbox: 128x128, squeeze-and-excitation, batch norm first."""

from torch import Tensor, nn

from marginface.backbones.blocks import Backbone, in_weight_precision, kaiming_

# expansion, channels, blocks, stride of the first block
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class SqueezeExcite(nn.Module):
    """As in `blocks`, but with biases, a PReLU and a reduction of 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 8, 1)
        self.conv2 = nn.Conv2d(channels // 8, channels, 1)
        self.relu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.conv2(self.relu(self.conv1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * weights


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1, squeeze-and-excitation; plus its input where shapes agree."""

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.residual = stride == 1 and in_channels == channels
        self.inv_block = nn.Sequential(
            *_conv(in_channels, inner, 1),
            *_conv(inner, inner, 3, stride, groups=inner),
            *_conv(inner, channels, 1)[:2],
            SqueezeExcite(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inv_block(x)
        return x + out if self.residual else out


class MobileFaceNetSE(Backbone):
    """Depthwise-separable net for 128x128 faces; every PReLU has one slope. Published with 256 features."""

    stem_parts = ("features.0",)
    embedding_parts = ("dw_pool", "dw_bn", "conv1_extra")

    def __init__(self, num_features: int = 512) -> None:
        super().__init__(num_features, image_size=(128, 128))
        layers: list[nn.Module] = [
            nn.Sequential(nn.BatchNorm2d(3), *_conv(3, 64, 3, 2)),
            *_conv(64, 64, 3, groups=64),
        ]
        in_channels = 64
        for expansion, channels, blocks, stride in STAGES:
            for i in range(blocks):
                layers.append(InvertedResidual(in_channels, channels, expansion, stride if i == 0 else 1))
                in_channels = channels
        layers.append(nn.Sequential(*_conv(in_channels, 512, 1)))
        self.features = nn.Sequential(*layers)
        self.dw_pool = nn.Conv2d(512, 512, 8, groups=512, bias=False)
        self.dw_bn = nn.BatchNorm2d(512)
        self.conv1_extra = nn.Conv2d(512, num_features, 1, bias=False)
        kaiming_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dw_bn(self.dw_pool(self.features(x)))
        return in_weight_precision((self.conv1_extra,), x).flatten(1)


def _conv(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution that keeps the size but for its stride, BN, and PReLU with one slope."""
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels), nn.PReLU()]
