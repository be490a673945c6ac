"""The residual nets of AdaFace (Kim et al. 2022) and CVLface: iresnet with lighter shortcuts, own keys.

Where iresnet has a 1x1 convolution in its first shortcut, this one has max pooling, and its last batch norm
has neither weight nor bias, so the checkpoints of the two families cannot be exchanged.
"""

from torch import Tensor, nn

from marginface.backbones.blocks import Backbone, SqueezeExcite, conv1x1, conv3x3, in_weight_precision, kaiming_

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """BN, conv, BN, PReLU, conv (with the stride), BN, plus a shortcut without weights where widths agree."""

    def __init__(self, in_channels: int, channels: int, stride: int, se: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != channels:
            self.shortcut_layer = nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            conv3x3(in_channels, channels),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            conv3x3(channels, channels, stride),
            nn.BatchNorm2d(channels),
        )
        if se:
            self.res_layer.add_module("se_block", SqueezeExcite(channels))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.res_layer(x)
        shortcut: Tensor = self.shortcut_layer(x)
        return residual + shortcut


class IR(Backbone):
    """Residual net for 112x112 faces.

    blocks: number of blocks in each of the four stages. se: squeeze-and-excitation in every block.
    dropout: before the embedding layer.
    The embedding comes out raw, where AdaFace's own code returns direction and norm.
    """

    stem_parts = ("input_layer",)
    embedding_parts = ("output_layer",)

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        num_features: int = 512,
        se: bool = False,
        dropout: float = 0.4,
    ) -> None:
        super().__init__(num_features)
        self.input_layer = nn.Sequential(conv3x3(3, 64), nn.BatchNorm2d(64), nn.PReLU(64))
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, num_features),
            nn.BatchNorm1d(num_features, affine=False),
        )
        self.body = nn.Sequential()
        in_channels = 64
        for channels, count in zip(WIDTHS, blocks, strict=True):
            for i in range(count):
                self.body.append(Block(in_channels, channels, stride=2 if i == 0 else 1, se=se))
                in_channels = channels
        kaiming_(self)

    def forward(self, x: Tensor) -> Tensor:
        norm, dropout, flatten, linear, last_norm = self.output_layer
        x = flatten(dropout(norm(self.body(self.input_layer(x)))))
        return in_weight_precision((linear, last_norm), x)
