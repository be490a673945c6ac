"""How large a backbone is and what it costs, without allocating it. For `marginface backbones`."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from marginface.backbones import create_backbone


@dataclass(frozen=True, slots=True)
class Size:
    """parameters: numbers learned or frozen, buffers apart. macs: multiply-adds of one image's forward pass.

    macs counts convolutions, linear layers and attention, as the papers do; norms and activations do not.
    """

    parameters: int
    macs: int
    num_features: int
    image_size: tuple[int, int]


def measure(name: str, num_features: int = 512, **options: Any) -> Size:
    """The size of `create_backbone(name, num_features, **options)`, which is built on the meta device."""
    with torch.device("meta"), torch.no_grad():
        backbone = create_backbone(name, num_features, **options).eval()
        image = torch.empty(1, 3, *backbone.image_size)
        with FlopCounterMode(display=False) as counter:
            backbone(image)
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return Size(parameters, counter.get_total_flops() // 2, num_features, backbone.image_size)
