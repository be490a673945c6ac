"""The quickstart's network: learns procedural faces in a minute or two on two CPU cores. Listed by `backbones`."""

from torch import Tensor, nn

from marginface.backbones.blocks import Backbone, conv3x3


class SmallBackbone(Backbone):
    """Four 3x3 convolutions on a halved image and a fully connected layer: 0.7 M parameters, 13 M multiply-adds.

    The image is halved by averaging and again by the first convolution, since a pixel there costs as much as a whole
    layer further on. The fully connected layer over the 7x7 map keeps where things are (ArcFace's option E, Deng et al.
    2019). width: channels of the first convolution; twice as many at 14x14, four times as many at 7x7.
    """

    stem_parts = ("trunk.1", "trunk.2", "trunk.3")
    embedding_parts = ("embed",)

    def __init__(self, num_features: int = 128, width: int = 24) -> None:
        super().__init__(num_features)
        self.trunk = nn.Sequential(
            nn.AvgPool2d(2),
            *_convolution(3, width, stride=2),
            *_convolution(width, 2 * width, stride=2),
            *_convolution(2 * width, 4 * width, stride=2),
            *_convolution(4 * width, 4 * width),
        )
        self.embed = nn.Sequential(nn.Linear(4 * width * 7 * 7, num_features, bias=False), nn.BatchNorm1d(num_features))

    def repeated(self) -> list[nn.Module]:
        return [self.trunk]

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.embed(self.trunk(images).flatten(1))
        return embeddings


def _convolution(in_channels: int, channels: int, stride: int = 1) -> list[nn.Module]:
    return [conv3x3(in_channels, channels, stride), nn.BatchNorm2d(channels), nn.PReLU(channels)]
