"""Activation checkpointing changes what is kept, and nothing else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from marginface.backbones import create_backbone, list_backbones
from marginface.backbones.blocks import Backbone
from marginface.backbones.gradient import GradientNet
from marginface.backbones.ir import IR
from marginface.backbones.iresnet import IResNet
from marginface.backbones.mobilefacenet import MobileFaceNet
from marginface.backbones.recomputing import recompute_blocks
from marginface.backbones.small import SmallBackbone
from marginface.backbones.sphere import Sphere
from marginface.backbones.vit import ViT

ONE = (1, 1, 1, 1)
SMALL: dict[str, Callable[[], Backbone]] = {
    "iresnet": lambda: IResNet(ONE, 8, se=True, dropout=0.4),
    "iresnet, momentum 0.9": lambda: IResNet(ONE, 8, bn_momentum=0.9),
    "mobilefacenet": lambda: MobileFaceNet((1, 1, 1, 1), 1, 8),
    "mobilefacenet-large": lambda: MobileFaceNet((2, 1, 1, 1), 1, 8),
    "mobilefacenet-se": lambda: create_backbone("mobilefacenet-se", 8),
    "ir": lambda: IR(ONE, 8),
    "vit": lambda: ViT(dim=16, depth=3, num_features=8, heads=2, drop_path=0.5),
    "small": lambda: SmallBackbone(8, width=4),
    "gradient": lambda: GradientNet(8, width=8),
    "sphere": lambda: Sphere(ONE, 8),
}


def trained(backbone: Backbone, still_norms: bool = False) -> tuple[Tensor, list[Tensor]]:
    """The loss, then gradients, weights and running statistics after two steps."""
    optimizer, random = torch.optim.SGD(backbone.parameters(), lr=0.01), torch.Generator().manual_seed(1)
    for step in range(2):
        torch.manual_seed(step)
        backbone.train()
        for module in backbone.modules():
            if still_norms and isinstance(module, nn.BatchNorm2d):
                module.eval()
        optimizer.zero_grad()
        loss = backbone(torch.randn(2, 3, *backbone.image_size, generator=random)).square().mean()
        loss.backward()
        optimizer.step()
    gradients = [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]
    return loss.detach(), [*gradients, *backbone.state_dict().values()]


@pytest.mark.parametrize(("name", "still_norms"), [*((name, False) for name in SMALL), ("gradient", True)])
def test_nothing_else_changes(name: str, still_norms: bool) -> None:
    found = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        backbone = SMALL[name]()
        if recomputed:
            recompute_blocks(backbone)
        found.append(trained(backbone, still_norms))
    (plain_loss, plain), (loss, again) = found
    assert torch.equal(loss, plain_loss)
    assert len(plain) == len(again) > 10
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_blocks_run_again_only_for_the_backward_pass() -> None:
    backbone, calls = MobileFaceNet(ONE, 1, 8), []
    recompute_blocks(backbone)
    backbone.layers[2].layers[1].register_forward_hook(lambda *_: calls.append(1))
    images = torch.randn(2, 3, 112, 112)
    backbone.train()(images).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        backbone.eval()(images)
    assert len(calls) == 3


@pytest.mark.parametrize("name", list_backbones())
def test_every_network_names_its_blocks(name: str) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name)
    blocks = backbone.repeated()
    inside = [module for block in blocks for module in block.modules()]
    assert len(inside) == len(set(inside))
    works = (nn.Conv2d, nn.Linear)
    counted, of_all = (sum(isinstance(m, works) for m in modules) for modules in (inside, backbone.modules()))
    assert counted >= of_all - 6  # the stem and the embedding layer are left
