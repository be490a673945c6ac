"""MobileFaceNet (Chen et al. 2018) in InsightFace's two sizes and layout."""

from torch import Tensor, nn

from marginface.backbones.blocks import Backbone, in_weight_precision, kaiming_


class ConvBlock(nn.Module):
    """Convolution without bias, BN and, unless `linear`, PReLU."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
        )
        if not linear:
            self.layers.append(nn.PReLU(channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class Bottleneck(nn.Module):
    """1x1 to `inner` channels, depthwise 3x3, linear 1x1; added to its input where `residual`."""

    def __init__(self, in_channels: int, channels: int, inner: int, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvBlock(in_channels, inner),
            ConvBlock(inner, inner, 3, stride, 1, groups=inner),
            ConvBlock(inner, channels, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class Residuals(nn.Module):
    """`blocks` residual bottlenecks of one width."""

    def __init__(self, channels: int, inner: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Bottleneck(channels, channels, inner, residual=True) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class EmbeddingHead(nn.Module):
    """Global depthwise convolution, one weight a place and channel, then linear and BN."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvBlock(512, 512, 7, groups=512, linear=True),
            nn.Flatten(),
            nn.Linear(512, num_features, bias=False),
            nn.BatchNorm1d(num_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        depthwise, flatten, linear, norm = self.layers
        return in_weight_precision((linear, norm), flatten(depthwise(x)))


class MobileFaceNet(Backbone):
    """Depthwise-separable net for 112x112 faces.

    blocks: of the stem and the three stages. scale: width, in units of 64 channels.
    """

    stem_parts = ("layers.0",)
    embedding_parts = ("features",)

    def __init__(self, blocks: tuple[int, int, int, int], scale: int, num_features: int = 512) -> None:
        super().__init__(num_features)
        width = 64 * scale
        # the inner widths do not grow with `scale`: so published, and so kept
        second = ConvBlock(width, width, 3, 1, 1, groups=64) if blocks[0] == 1 else Residuals(width, 128, blocks[0])
        self.layers = nn.Sequential(
            ConvBlock(3, width, 3, 2, 1),
            second,
            Bottleneck(width, width, 128, stride=2),
            Residuals(width, 128, blocks[1]),
            Bottleneck(width, 2 * width, 256, stride=2),
            Residuals(2 * width, 256, blocks[2]),
            Bottleneck(2 * width, 2 * width, 512, stride=2),
            Residuals(2 * width, 256, blocks[3]),
        )
        self.conv_sep = ConvBlock(2 * width, 512)
        self.features = EmbeddingHead(num_features)
        kaiming_(self)

    def repeated(self) -> list[nn.Module]:
        return [block for part in self.layers for block in (part.layers if isinstance(part, Residuals) else (part,))]

    def forward(self, x: Tensor) -> Tensor:
        embeddings: Tensor = self.features(self.conv_sep(self.layers(x)))
        return embeddings
