"""One way to open any model; the conventions of its authors come along, and so do the class weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

import marginface
from marginface.backbones import create_backbone
from marginface.embedder import Embedder, ModelConfig, unit
from marginface.errors import InputError
from marginface.margins import create_margin
from marginface.softmax import MarginSoftmax
from marginface.weights import import_checkpoint, recognise, save_imported, take_over_head

CLASSES = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AdaFace's, whose convention is all that can differ: BGR, norms, class weights, statistics."""
    torch.manual_seed(0)
    state = {f"model.{key}": value for key, value in create_backbone("ir18", num_features=8).state_dict().items()}
    head = {
        "head.kernel": torch.arange(8.0 * CLASSES).view(8, CLASSES),
        "head.t": torch.zeros(1),
        "head.batch_mean": torch.tensor([20.5]),
        "head.batch_std": torch.tensor([90.25]),
    }
    path = tmp_path_factory.mktemp("adaface") / "downloaded"
    torch.save({"state_dict": state | head}, path)
    return path


def test_a_checkpoint_opens_like_a_model_and_takes_rgb(checkpoint: Path) -> None:
    model = marginface.load(checkpoint)
    assert (model.config.backbone, model.preprocessing.flip, model.preprocessing.quality) == ("ir18", "add", "norm")
    assert model.notes["source"] == "adaface"
    face = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), np.uint8)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    theirs = create_backbone("ir18", num_features=8)
    theirs.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    bgr = torch.from_numpy((face[..., ::-1].astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = theirs.eval()(bgr) + theirs(bgr.flip(-1))
    np.testing.assert_allclose(unit(next(model.raw([face]))), unit(expected.numpy()), atol=2e-6)


def test_saved_and_loaded_again(checkpoint: Path, tmp_path: Path) -> None:
    saved = save_imported(import_checkpoint(checkpoint), tmp_path / "run" / "model", "downloaded")
    again = marginface.load(tmp_path / "run")  # a run's folder holds its model
    assert (again.config, again.preprocessing, again.notes) == (saved.config, saved.preprocessing, saved.notes)
    for key, value in saved.backbone.state_dict().items():
        assert torch.equal(value, again.backbone.state_dict()[key])


def test_class_weights_come_along_where_the_count_matches(checkpoint: Path, tmp_path: Path) -> None:
    save_imported(import_checkpoint(checkpoint), tmp_path / "model", "downloaded")
    head = MarginSoftmax(8, CLASSES, create_margin("adaface"))
    assert take_over_head(head, tmp_path / "model")
    assert torch.equal(head.weight, torch.arange(8.0 * CLASSES).view(8, CLASSES).T)
    statistics = dict(head.margin.named_buffers())
    assert (statistics["batch_mean"].item(), statistics["batch_std"].item()) == (20.5, 90.25)
    other = MarginSoftmax(8, CLASSES + 1, create_margin("adaface"))
    before = other.weight.clone()
    assert not take_over_head(other, tmp_path / "model")
    assert torch.equal(other.weight, before)
    (tmp_path / "model" / "head.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(InputError, match="is damaged"):
        take_over_head(head, tmp_path / "model")
    assert not take_over_head(head, tmp_path)


def test_a_narrow_network_keeps_its_width() -> None:
    with torch.device("meta"):
        shapes = create_backbone("sphere20", num_features=8).state_dict()
    state = {key: torch.ones(value.shape) for key, value in shapes.items()}
    from marginface.weights import to_embedder

    preprocessing = to_embedder(recognise(state, source="sphereface"), "sphere20a.pth").preprocessing
    assert (preprocessing.image_size, preprocessing.flip, preprocessing.std) == ((112, 96), "concat", 128.0)


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist; give a model's folder, a checkpoint, or org/name"):
        marginface.load("nowhere")
    with pytest.raises(InputError, match=r"holds no config\.json"):
        marginface.load(tmp_path)
    (tmp_path / "16backbone.pth").write_bytes(b"x")
    with pytest.raises(InputError, match=r"is a folder of checkpoints; give one of its files: 16backbone\.pth"):
        marginface.load(tmp_path)
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(InputError, match="is a web page, not a checkpoint"):
        marginface.load(tmp_path / "page.pth")


def test_a_model_is_not_an_embedder_of_another_kind(tmp_path: Path) -> None:
    Embedder.create(ModelConfig("small", 4, {"width": 4})).save(tmp_path / "model")
    assert isinstance(marginface.load(tmp_path / "model"), Embedder)
