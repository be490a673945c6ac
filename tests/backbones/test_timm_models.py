"""Any timm network as a backbone; and a clear sentence without the library."""

import sys

import pytest
import torch

from marginface.backbones import create_backbone
from marginface.errors import InputError


def test_without_the_library_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm, which cannot be imported .*'marginface\[timm\]'"):
        create_backbone("timm:resnet18")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:resnet18", {}),
        ("timm:resnet18", {"neck": "flatten", "dropout": 0.1}),
        ("timm:vit_tiny_patch16_224", {"neck": "flatten"}),
        ("timm:mobilenetv3_small_050", {"image_size": 64}),
        ("timm:convnext_atto", {"drop_path_rate": 0.1}),
    ],
)
def test_networks_embed(name: str, options: dict[str, object]) -> None:
    backbone = create_backbone(name, num_features=64, **options)
    embeddings = backbone(torch.randn(4, 3, *backbone.image_size))
    assert embeddings.shape == (4, 64)
    embeddings.sum().backward()
    assert all(p.grad is not None for p in backbone.neck.parameters())


def test_unknown_model_names_similar_ones() -> None:
    with pytest.raises(InputError, match=r"timm has no model 'resnet19x'|similar"):
        create_backbone("timm:resnet19x")
    with pytest.raises(InputError, match=r"no model 'resnet1'; similar: .*resnet18"):
        create_backbone("timm:resnet1")


def test_unknown_option_is_refused() -> None:
    with pytest.raises(InputError, match="timm cannot build resnet18"):
        create_backbone("timm:resnet18", depth=5)
    with pytest.raises(InputError, match="give pool or flatten"):
        create_backbone("timm:resnet18", neck="gdc")
