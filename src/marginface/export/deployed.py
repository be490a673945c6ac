"""The network as it leaves the house: pixels to embeddings in one module, or without the first and last step."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from marginface.embedder import Embedder, Preprocessing


@dataclass(frozen=True)
class Interface:
    """What goes into an exported network and what comes out.

    pixels: it takes RGB 0..255 and normalises them itself; otherwise the caller does.
    unit: embeddings leave with length 1; otherwise as the network gives them, whose length may tell quality.
    """

    pixels: bool = False
    unit: bool = False

    def describe(self, model: Embedder) -> dict[str, str]:
        """In words, for the metadata."""
        height, width = model.preprocessing.image_size
        mean, std = model.preprocessing.mean, model.preprocessing.std
        values = "0 to 255" if self.pixels else f"(v - {mean:g}) / {std:g} of v in 0 to 255"
        length = "length 1" if self.unit else "not normalised"
        return {
            "input": f"images: float32 (N, 3, {height}, {width}), RGB, {values}",
            "output": f"embeddings: float32 (N, {model.config.num_features}), {length}",
        }


class Deployed(nn.Module):
    """Float32 (N, 3, H, W) as `interface` says -> float32 (N, num_features)."""

    def __init__(self, backbone: nn.Module, preprocessing: Preprocessing, interface: Interface) -> None:
        super().__init__()
        self.backbone, self.interface = backbone, interface
        self.mean, self.scale = preprocessing.mean, 1 / preprocessing.std

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) * self.scale if self.interface.pixels else images
        embeddings: Tensor = self.backbone(x)
        return nn.functional.normalize(embeddings) if self.interface.unit else embeddings


class Foreign(nn.Module):
    """A network in another runtime, as a backbone: an Embedder around it evaluates and embeds like any other."""

    def __init__(self, run: nn.Module, preprocessing: Preprocessing, interface: Interface) -> None:
        super().__init__()
        self.run, self.interface = run, interface
        self.mean, self.std = preprocessing.mean, preprocessing.std

    def train(self, mode: bool = True) -> "Foreign":
        """Other runtimes know nothing of training, and torch's exported programs refuse to be asked."""
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        # pixels are whole numbers: rounding takes back what normalising lost
        images = (x * self.std + self.mean).round() if self.interface.pixels else x
        embeddings: Tensor = self.run(images.contiguous())
        return embeddings


def program(model: Embedder, interface: Interface) -> torch.export.ExportedProgram:
    """torch's graph of the network with a free batch size."""
    deployed = Deployed(model.backbone.cpu().eval(), model.preprocessing, interface).eval()
    images = torch.zeros(2, 3, *model.preprocessing.image_size)
    with torch.no_grad():
        return torch.export.export(deployed, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
