"""What does not fit: the table, and what allow_partial makes of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from marginface.backbones import create_backbone
from marginface.errors import InputError
from marginface.weights import import_checkpoint, recognise

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    return create_backbone("mobilefacenet", num_features=32).state_dict()


def test_the_table_shows_missing_mismatched_and_unexpected(state: State) -> None:
    del state["conv_sep.layers.2.weight"]
    state["features.layers.3.bias"] = torch.zeros(5)
    state["extra.weight"] = torch.zeros(2, 3)
    with pytest.raises(InputError) as caught:
        recognise(state, name="face.pth")
    lines = str(caught.value).splitlines()
    assert "face.pth looks like insightface's mobilefacenet, but 3 keys do not fit" in lines[0]
    assert [line.split() for line in lines[2:]] == [
        ["missing", "conv_sep.layers.2.weight", "[512]", "-"],
        ["mismatched", "features.layers.3.bias", "[32]", "[5]"],
        ["unexpected", "extra.weight", "-", "[2,", "3]"],
    ]


def test_partial_import_keeps_fresh_weights_where_the_files_do_not_fit(state: State) -> None:
    kept = state["conv_sep.layers.0.weight"].clone()
    del state["conv_sep.layers.2.weight"]
    state["features.layers.3.bias"] = torch.zeros(5)
    model = recognise(state, allow_partial=True)
    assert "missing" in model.partial
    assert "mismatched" in model.partial
    built = model.build()
    assert torch.equal(built.get_parameter("conv_sep.layers.0.weight"), kept)
    assert (built.get_parameter("conv_sep.layers.2.weight") == 0.25).all()


def test_another_depth_is_named_by_its_nearest(tmp_path: Path) -> None:
    """An iresnet34 cut short is still recognised, and told what is missing."""
    with torch.device("meta"):
        full = create_backbone("iresnet34", num_features=4).state_dict()
    cut = {k: torch.zeros(v.shape) for k, v in full.items() if not k.startswith(("layer4.2", "fc", "features"))}
    with pytest.raises(InputError, match=r"iresnet34, but \d+ keys do not fit"):
        recognise(cut)


def test_long_tables_are_cut(state: State) -> None:
    some = {key: value for i, (key, value) in enumerate(state.items()) if i % 2 or key.startswith("layers.0")}
    with pytest.raises(InputError, match=r"\.\.\. and \d+ more"):
        recognise(some)


def test_heads_of_another_length_are_refused(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "backbone.pth")
    torch.save({"kernel": torch.zeros(512, 9)}, tmp_path / "header.pth")
    with pytest.raises(InputError, match=r"header.pth holds class weights \[9, 512\].*embeddings of 32"):
        import_checkpoint(tmp_path / "backbone.pth", head=tmp_path / "header.pth")
