"""SphereFace's plain residual nets without batch norm (Liu et al. 2017), in sphereface_pytorch's layout."""

from torch import Tensor, nn

from marginface.backbones.blocks import Backbone, in_weight_precision

WIDTHS = (64, 128, 256, 512)


class Pair(nn.Module):
    """Convolution and PReLU, twice, added to the input. The layers are the network's, which gives them their names."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out


class Sphere(Backbone):
    """Convolutions with bias and PReLU; a stage is one with stride 2, then `blocks` residual pairs.

    blocks: residual pairs in each of the four stages.
    image_size: height and width; 112x96 as published, other projects train it on 112x112.
    """

    stem_parts = ("conv1_1", "relu1_1")
    embedding_parts = ("fc5",)

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        num_features: int = 512,
        image_size: tuple[int, int] = (112, 96),
    ) -> None:
        height, width = image_size
        super().__init__(num_features, (height, width))
        self._steps: list[nn.Module] = []  # in a plain list, so that a layer has one name
        in_channels = 3
        for stage, (channels, count) in enumerate(zip(WIDTHS, blocks, strict=True), start=1):
            layers: list[nn.Module] = []
            for i in range(1, 2 * count + 2):
                layers += [nn.Conv2d(in_channels, channels, 3, 2 if i == 1 else 1, 1), nn.PReLU(channels)]
                self.add_module(f"conv{stage}_{i}", layers[-2])
                self.add_module(f"relu{stage}_{i}", layers[-1])
                in_channels = channels
            self._steps += [*layers[:2], *(Pair(*layers[i : i + 4]) for i in range(2, len(layers), 4))]
        # four strides of 2, each rounding up
        self.fc5 = nn.Linear(512 * -(-height // 16) * -(-width // 16), num_features)

    def forward(self, x: Tensor) -> Tensor:
        for step in self._steps:
            x = step(x)
        return in_weight_precision((self.fc5,), x.flatten(1))

    def repeated(self) -> list[nn.Module]:
        return [step for step in self._steps if isinstance(step, Pair)]
