"""What the golden outputs do not show: initialisation, options, half precision, memory layout."""

import pytest
import torch
from torch import nn

from marginface.backbones import create_backbone


def test_initialisation_is_insightfaces() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("iresnet18")
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 30_000:
            assert module.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert not backbone.get_parameter("features.weight").requires_grad
    assert (backbone.get_parameter("features.weight") == 1).all()


def test_kaiming_initialisation_on_request() -> None:
    torch.manual_seed(0)
    weight = create_backbone("iresnet18", init="kaiming").get_parameter("layer4.1.conv2.weight")
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)


def test_options_reach_the_layers() -> None:
    with torch.device("meta"):
        backbone = create_backbone("iresnet18", bn_eps=2e-5, bn_momentum=0.9, dropout=0.4, channel_dropout=True)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(2e-5, 0.9)}
    assert [m.p for m in backbone.modules() if isinstance(m, nn.Dropout2d)] == [0.4]


@torch.no_grad()
def test_half_precision_keeps_a_float32_head() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("mobilefacenet", num_features=64).eval()
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    exact = backbone(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = backbone(images)
    assert mixed.dtype == torch.float32
    assert nn.functional.cosine_similarity(exact, mixed).min() > 0.999
    assert backbone.bfloat16()(images.bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
def test_channels_last_gives_the_same_embeddings() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("mobilefacenet", num_features=64).double().eval()
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    expected = backbone(images)
    backbone.to(memory_format=torch.channels_last)
    got = backbone(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
