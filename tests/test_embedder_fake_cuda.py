"""Embedding on a CUDA device that is not there: one copy there and one back. On "meta" a network of every family."""

import numpy as np
import pytest
import torch

from fake_cuda import fake_cuda, on
from marginface.backbones import create_backbone
from marginface.embedder import Embedder, ModelConfig, Preprocessing


@pytest.mark.parametrize("flip", ["add", "concat", "none"])
@pytest.mark.parametrize("name", ["small", "mobilefacenet"])
def test_one_copy_back_a_batch(name: str, flip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Embedder.create(ModelConfig(name, 16), Preprocessing(flip=flip))
    images = np.zeros((2, 112, 112, 3), np.uint8)
    with fake_cuda(monkeypatch) as waits:
        on("cuda", model.backbone)
        monkeypatch.setattr(torch.Tensor, "numpy", lambda x: np.zeros(x.shape, np.float32))
        assert model.device.type == "cuda"
        found = list(model.raw([images, images]))
    assert [x.shape for x in found] == [(2, model.length())] * 2
    assert waits.found == [f"aten._to_copy.default [{found[0].shape}, {found[0].shape}]"] * 2


@pytest.mark.parametrize(
    "name", ["small", "mobilefacenet", "mobilefacenet-se", "iresnet18", "ir18", "vit-tiny", "sphere20"]
)
def test_on_meta(name: str) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name, 16).eval()
        images = torch.empty(2, 3, *backbone.image_size)
    with torch.no_grad():
        assert backbone(images).shape == (2, 16)
        assert backbone(images).is_meta
