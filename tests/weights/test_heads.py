"""Class weights in files of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from marginface.backbones import create_backbone
from marginface.errors import InputError
from marginface.weights import import_checkpoint
from marginface.weights.heads import read_head

WEIGHTS = torch.arange(20.0).view(5, 4)


@pytest.mark.parametrize(
    "content",
    [
        {"kernel": WEIGHTS.T.contiguous()},  # ElasticFace's header
        WEIGHTS,  # Partial FC v1
        {"weight": WEIGHTS},  # Partial FC v2
        {"state_dict_backbone": {"fc.weight": torch.zeros(4, 9)}, "state_dict_softmax_fc": {"weight": WEIGHTS}},
        {"state_dict": {"head.kernel": WEIGHTS.T.contiguous()}},
    ],
)
def test_layouts(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "head")
    assert torch.equal(read_head([tmp_path / "head"], 4), WEIGHTS)


def test_shards_are_joined_in_the_order_given(tmp_path: Path) -> None:
    shards = []
    for rank, rows in enumerate(WEIGHTS.split(2)):
        shards.append(tmp_path / f"rank_{rank}_softmax_weight.pt")
        torch.save(rows.half().contiguous().clone(), shards[-1])
    torch.save(create_backbone("mobilefacenet", num_features=4).state_dict(), tmp_path / "backbone.pth")
    model = import_checkpoint(tmp_path / "backbone.pth", head=shards)
    assert torch.equal(model.head, WEIGHTS)


def test_a_file_without_class_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"bias": WEIGHTS}, tmp_path / "head")
    with pytest.raises(InputError, match="holds no class weights; expected one of the keys kernel, weight"):
        read_head([tmp_path / "head"], 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WEIGHTS, "looks like a Partial FC shard; give it as the head"),
        ({"kernel": WEIGHTS}, "holds class weights and no network; give it as the head"),
        ({"weight": WEIGHTS}, "holds class weights and no network; give it as the head"),
    ],
)
def test_a_head_given_as_the_backbone_is_told_apart(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "backbone.pth")
    with pytest.raises(InputError, match=message):
        import_checkpoint(tmp_path / "backbone.pth")
