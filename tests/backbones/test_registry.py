"""Backbones by name: what exists, what it is told, what it answers."""

import pytest
import torch

from marginface.backbones import BACKBONES, backbone_options, create_backbone, list_backbones
from marginface.errors import InputError

LARGE = ("iresnet100", "iresnet200", "ir101", "vit-base", "vit-large", "vit-huge", "sphere64")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in list_backbones()],
)
def test_every_backbone_keeps_its_promise(name: str) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name, num_features=96).eval()
        output = backbone(torch.empty(2, 3, *backbone.image_size))
    assert output.shape == (2, 96)
    assert backbone.num_features == 96


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"no backbone 'resnet50'.*iresnet50.*mobilefacenet"):
        create_backbone("resnet50")


def test_unknown_option_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"iresnet18 has no option 'depth'.*se, bn_eps, bn_momentum"):
        create_backbone("iresnet18", depth=3)
    with pytest.raises(InputError, match=r"mobilefacenet-se has no option 'se'; its options are: none"):
        create_backbone("mobilefacenet-se", se=True)


def test_architecture_is_no_option() -> None:
    assert "blocks" not in backbone_options("iresnet18")
    assert all("num_features" not in backbone_options(name) for name in BACKBONES)


def test_embedding_needs_a_length() -> None:
    with pytest.raises(InputError, match="num_features is 0"):
        create_backbone("iresnet18", num_features=0)


def test_same_seed_same_weights() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(create_backbone("mobilefacenet", num_features=8).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
