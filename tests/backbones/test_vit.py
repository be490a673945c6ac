"""Training-time behaviour of the vision transformer."""

import pytest
import torch

from marginface.backbones import create_backbone
from marginface.backbones.vit import ViT
from marginface.errors import InputError


def tiny(**options: object) -> ViT:
    torch.manual_seed(0)
    return ViT(dim=16, depth=2, num_features=8, heads=2, **options)


def test_dropped_tokens_come_back_as_the_mask_token() -> None:
    vit = tiny(mask_ratio=0.25)
    tokens = torch.randn(3, 144, 16)
    order = torch.rand(3, 144).argsort(1)
    restored = vit._restore(vit._keep(tokens, order), order)
    kept = (restored == tokens).all(2)
    assert kept.sum(1).tolist() == [108, 108, 108]
    assert (restored[~kept] == vit.mask_token[0]).all()


def test_masking_is_for_training_only() -> None:
    images = torch.randn(4, 3, 112, 112)
    vit = tiny(mask_ratio=0.5, drop_path=0.0).eval()
    assert torch.equal(vit(images), vit(images))
    vit.train()
    assert not torch.equal(vit(images), vit(images))


def test_stochastic_depth_keeps_the_mean() -> None:
    from marginface.backbones.blocks import DropPath

    torch.manual_seed(0)
    out = DropPath(0.2).train()(torch.ones(10_000, 1, 1))
    assert set(out.unique().tolist()) == {0.0, 1.25}
    assert out.mean().item() == pytest.approx(1, abs=0.02)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InputError, match="heads is 7, which does not divide the transformer's width 256"):
        create_backbone("vit-tiny", heads=7)
