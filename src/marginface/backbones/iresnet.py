"""The residual nets of ArcFace (Deng et al. 2019), InsightFace layout; also ElasticFace's and MagFace's."""

from typing import Literal

from torch import Tensor, nn

from marginface.backbones.blocks import Backbone, SqueezeExcite, conv1x1, conv3x3, in_weight_precision

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """BN, conv, BN, PReLU, conv (with the stride), BN, on top of an identity or 1x1 shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, se: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))
        self.se_block = SqueezeExcite(channels) if se else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        residual = self.se_block(self.bn3(self.conv2(residual)))
        shortcut: Tensor = self.downsample(x)
        return residual + shortcut


class IResNet(Backbone):
    """Residual net for 112x112 faces whose stem keeps the full resolution.

    blocks: number of blocks in each of the four stages.
    se: squeeze-and-excitation in every block (ElasticFace's SE option).
    bn_eps, bn_momentum: of all batch norms; MagFace uses 2e-5 and 0.9.
    dropout: before the embedding layer. ElasticFace's iresnet50 uses 0.4.
    channel_dropout: drop whole channels instead of single values (MagFace, 0.4).
    freeze_scale: the last batch norm's weight stays 1 (InsightFace, ElasticFace); MagFace trains it.
    init: "normal" draws convolutions from N(0, 0.1) (InsightFace); "kaiming" is MagFace's.
    """

    stem_parts = ("conv1", "bn1", "prelu")
    embedding_parts = ("bn2", "dropout", "fc", "features")

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        num_features: int = 512,
        se: bool = False,
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
        dropout: float = 0.0,
        channel_dropout: bool = False,
        freeze_scale: bool = True,
        init: Literal["normal", "kaiming"] = "normal",
    ) -> None:
        super().__init__(num_features)
        self.conv1 = conv3x3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.layer1 = _stage(64, WIDTHS[0], blocks[0], se)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks[1], se)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks[2], se)
        self.layer4 = _stage(WIDTHS[2], WIDTHS[3], blocks[3], se)
        self.bn2 = nn.BatchNorm2d(512)
        self.dropout = nn.Dropout2d(dropout) if channel_dropout else nn.Dropout(dropout)
        self.fc = nn.Linear(512 * 7 * 7, num_features)
        self.features = nn.BatchNorm1d(num_features)
        self.features.weight.requires_grad = not freeze_scale
        _initialise(self, init, bn_eps, bn_momentum)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.dropout(self.bn2(x)).flatten(1)
        return in_weight_precision((self.fc, self.features), x)


def _stage(in_channels: int, channels: int, blocks: int, se: bool) -> nn.Sequential:
    first = Block(in_channels, channels, stride=2, se=se)
    return nn.Sequential(first, *(Block(channels, channels, stride=1, se=se) for _ in range(blocks - 1)))


def _initialise(model: nn.Module, init: str, bn_eps: float, bn_momentum: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and init == "normal":
            nn.init.normal_(module.weight, 0.0, 0.1)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eps, module.momentum = bn_eps, bn_momentum
