"""What is written is what InsightFace's loader reads: its keys, its batch norms, the same embeddings."""

from pathlib import Path

import pytest
import torch
from torch import nn

from marginface.backbones import Backbone, create_backbone
from marginface.errors import InputError
from marginface.weights import import_checkpoint
from marginface.weights.to_insightface import insightface_state


def trained(name: str, **options: object) -> Backbone:
    """With small running variances, where the eps counts."""
    torch.manual_seed(0)
    backbone = create_backbone(name, num_features=16, **options).double().eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(1e-3, 2e-3)
            module.weight.data.mul_(0.02)
    return backbone


@torch.no_grad()
def test_other_eps_gives_the_same_embeddings(tmp_path: Path) -> None:
    images = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    backbone = trained("iresnet18", bn_eps=2e-5)
    torch.save(insightface_state(backbone), tmp_path / "backbone.pth")
    theirs = create_backbone("iresnet18", num_features=16).double().eval()
    unmoved = create_backbone("iresnet18", num_features=16).double().eval()
    theirs.load_state_dict(torch.load(tmp_path / "backbone.pth", weights_only=True))
    unmoved.load_state_dict(backbone.state_dict())
    expected = backbone(images)
    torch.testing.assert_close(theirs(images), expected, rtol=1e-9, atol=1e-9 * expected.abs().max())
    assert (unmoved(images) - expected).abs().max() > 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["iresnet18", "mobilefacenet"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(name, num_features=16)
    torch.save(insightface_state(backbone), tmp_path / "backbone.pth")
    model = import_checkpoint(tmp_path / "backbone.pth")
    assert (model.source, model.backbone, model.notes) == ("insightface", name, [])
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in model.state_dict.items())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("iresnet18", {"se": True}, "iresnet18 would not load these weights:\n.*\n *unexpected.*se_block"),
        ("ir18", {}, "InsightFace has no IR; it has iresnet, mobilefacenet and vit"),
        ("vit-tiny", {"patch_size": 8}, "vit-tiny would not load these weights"),
        ("vit-tiny", {"heads": 4}, "has other attention heads"),
    ],
)
def test_what_insightface_cannot_build_is_refused(name: str, options: dict[str, object], message: str) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name, **options)
    with pytest.raises(InputError, match=message):
        insightface_state(backbone)


def test_other_preprocessing_is_refused() -> None:
    with torch.device("meta"):
        backbone = create_backbone("iresnet18")
    with pytest.raises(InputError, match=r"takes \(v - 0\) / 255"):
        insightface_state(backbone, mean=0, std=255)
