"""SphereFace's plain residual nets without batch norm (Liu et al. 2017), in sphereface_pytorch's layout."""

from torch import Tensor, nn

from marginface.backbones.blocks import Backbone, in_weight_precision

WIDTHS = (64, 128, 256, 512)


class Sphere(Backbone):
    """Convolutions with bias and PReLU; a stage is one with stride 2, then `blocks` residual pairs.

    blocks: residual pairs in each of the four stages.
    image_size: height and width; 112x96 as published, other projects train it on 112x112.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        num_features: int = 512,
        image_size: tuple[int, int] = (112, 96),
    ) -> None:
        height, width = image_size
        super().__init__(num_features, (height, width))
        self.blocks = blocks
        in_channels = 3
        for stage, (channels, count) in enumerate(zip(WIDTHS, blocks, strict=True), start=1):
            for i in range(1, 2 * count + 2):
                conv = nn.Conv2d(in_channels, channels, 3, 2 if i == 1 else 1, 1)
                self.add_module(f"conv{stage}_{i}", conv)
                self.add_module(f"relu{stage}_{i}", nn.PReLU(channels))
                in_channels = channels
        # four strides of 2, each rounding up
        self.fc5 = nn.Linear(512 * -(-height // 16) * -(-width // 16), num_features)

    def forward(self, x: Tensor) -> Tensor:
        for stage, count in enumerate(self.blocks, start=1):
            x = self._layer(stage, 1, x)
            for i in range(2, 2 * count + 2, 2):
                x = x + self._layer(stage, i + 1, self._layer(stage, i, x))
        return in_weight_precision((self.fc5,), x.flatten(1))

    def _layer(self, stage: int, i: int, x: Tensor) -> Tensor:
        conv, relu = self.get_submodule(f"conv{stage}_{i}"), self.get_submodule(f"relu{stage}_{i}")
        out: Tensor = relu(conv(x))
        return out
