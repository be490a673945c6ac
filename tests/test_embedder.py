"""The public model object: flip fusion by its formula, strict files, one sentence for what cannot be loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import marginface
from marginface.embedder import Embedder, ModelConfig, Preprocessing
from marginface.errors import InputError


@pytest.fixture(scope="module")
def model() -> Embedder:
    torch.manual_seed(0)
    return Embedder.create(ModelConfig("small", 16, {"width": 4}))


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)


def by_hand(model: Embedder, faces: np.ndarray) -> np.ndarray:
    """f(x) + f(mirror of x), divided by its length, one image at a time in plain steps."""
    out = []
    for face in faces:
        views = [face, face[:, ::-1]]
        x = torch.tensor(np.stack([(view.astype(np.float32) - 127.5) / 127.5 for view in views])).permute(0, 3, 1, 2)
        with torch.no_grad():
            total = model.backbone.eval()(x).sum(0).numpy()
        out.append(total / np.linalg.norm(total))
    return np.stack(out)


def test_embeddings_follow_the_formula(model: Embedder, faces: np.ndarray) -> None:
    got = model.embed(faces)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_hand(model, faces), atol=2e-6)


def test_batches_and_lists_do_not_matter(model: Embedder, faces: np.ndarray) -> None:
    np.testing.assert_allclose(model.embed(list(faces), batch_size=2), model.embed(faces), atol=2e-6)
    assert model.embed(faces[:0]).shape == (0, 16)


def test_a_mirror_image_embeds_the_same_with_flip_only(model: Embedder, faces: np.ndarray) -> None:
    mirrored = np.ascontiguousarray(faces[:, :, ::-1])
    np.testing.assert_allclose(model.embed(mirrored), model.embed(faces), atol=2e-6)
    assert np.abs(model.embed(mirrored, flip=False) - model.embed(faces, flip=False)).max() > 1e-3


def test_embedding_leaves_the_training_mode_alone(model: Embedder, faces: np.ndarray) -> None:
    model.backbone.train()
    model.embed(faces)
    assert model.backbone.training
    model.backbone.eval()


def test_save_and_load(model: Embedder, faces: np.ndarray, tmp_path: Path) -> None:
    model.notes["origin"] = "a test"
    model.save(tmp_path / "model")
    again = marginface.load(tmp_path / "model")
    assert (again.embed(faces) == model.embed(faces)).all()
    assert again.notes == {"origin": "a test"}
    assert again.preprocessing == Preprocessing()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((112, 112, 3), np.float32), "image 1 is float32"),
        (np.zeros((100, 112, 3), np.uint8), r"\(100, 112, 3\).*marginface align"),
        (np.zeros((112, 112), np.uint8), r"image 1 is uint8 \(112, 112\)"),
    ],
)
def test_other_images_are_refused(model: Embedder, faces: np.ndarray, image: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.embed([faces[0], image])


def test_what_cannot_be_loaded_is_named(model: Embedder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(InputError, match=r"holds no config\.json"):
        Embedder.load(folder)
    model.save(folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        Embedder.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        Embedder.load(folder)
    (folder / "model.safetensors").write_bytes(weights)
    config = json.loads((folder / "config.json").read_text())
    config["model"]["options"] = {"width": 8}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="does not hold a small"):
        Embedder.load(folder)
    (folder / "config.json").write_text("<html>")
    with pytest.raises(InputError, match="not a marginface model description"):
        Embedder.load(folder)
