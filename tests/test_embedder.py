"""The public model object: flip fusion by its formula, strict files, one sentence for what cannot be loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import marginface
from marginface.embedder import Embedder, ModelConfig, Preprocessing, unit
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


def exact(model: Embedder, faces: np.ndarray, flip: bool = True) -> np.ndarray:
    return unit(np.concatenate(list(model.raw([faces], flip))))


def test_embeddings_follow_the_formula(model: Embedder, faces: np.ndarray) -> None:
    got, expected = model.embed(faces), by_hand(model, faces)
    assert got.dtype == np.float32
    np.testing.assert_allclose(exact(model, faces), expected, atol=2e-6)
    assert (got * expected).sum(1).min() >= 0.9995


def test_batches_and_lists_do_not_matter(model: Embedder, faces: np.ndarray) -> None:
    in_twos = unit(np.concatenate(list(model.raw([list(faces[:2]), faces[2:4], faces[4:]]))))
    np.testing.assert_allclose(in_twos, exact(model, faces), atol=2e-6)
    assert (model.embed(list(faces), batch_size=2) * model.embed(faces)).sum(1).min() >= 0.9995
    assert model.embed(faces[:0]).shape == (0, 16)


def test_a_mirror_image_embeds_the_same_with_flip_only(model: Embedder, faces: np.ndarray) -> None:
    mirrored = np.ascontiguousarray(faces[:, :, ::-1])
    np.testing.assert_allclose(exact(model, mirrored), exact(model, faces), atol=2e-6)
    assert np.abs(exact(model, mirrored, flip=False) - exact(model, faces, flip=False)).max() > 1e-3


@pytest.mark.parametrize(("flip", "length"), [("add", 16), ("concat", 32), ("none", 16)])
def test_mirror_images_are_used_as_the_authors_do(model: Embedder, faces: np.ndarray, flip: str, length: int) -> None:
    theirs = Embedder(model.backbone, model.config, Preprocessing(flip=flip))
    plain = np.concatenate(list(theirs.raw([faces], flip=False)))
    mirrored = np.concatenate(list(theirs.raw([np.ascontiguousarray(faces[:, :, ::-1])], flip=False)))
    expected = {"add": plain + mirrored, "concat": np.concatenate([plain, mirrored], 1), "none": plain}[flip]
    np.testing.assert_allclose(np.concatenate(list(theirs.raw([faces]))), expected, rtol=1e-4, atol=1e-5)
    assert theirs.embed(faces).shape == (5, length) == (5, theirs.length())
    assert theirs.embed(faces[:0]).shape == (0, length)


def test_quality_is_the_length_of_the_embedding_where_that_means_something(model: Embedder, faces: np.ndarray) -> None:
    with pytest.raises(InputError, match="length of this small's embeddings does not tell quality"):
        model.quality(faces)
    magface = Embedder(model.backbone, model.config, Preprocessing(quality="norm", flip="none"))
    lengths = np.linalg.norm(np.concatenate(list(magface.raw([faces]))), axis=1)
    np.testing.assert_allclose(magface.quality(faces, batch_size=2), lengths, rtol=1e-5)


def test_a_narrow_network_sees_the_middle_of_a_square_face() -> None:
    torch.manual_seed(0)
    narrow = Embedder.create(ModelConfig("sphere20", 8), Preprocessing(112, width=96, std=128.0, flip="concat"))
    square = np.random.default_rng(1).integers(0, 256, (2, 112, 112, 3), np.uint8)
    assert np.array_equal(exact(narrow, square), exact(narrow, square[:, :, 8:104]))
    with pytest.raises(InputError, match=r"takes RGB uint8 \(112, 96, 3\)"):
        narrow.embed(square[:, :100])


def test_the_fast_way_notices_new_weights(model: Embedder, faces: np.ndarray) -> None:
    own = Embedder.create(model.config)
    first = own.embed(faces)
    own.backbone.load_state_dict(model.backbone.state_dict())
    assert (own.embed(faces) * exact(model, faces)).sum(1).min() >= 0.9995
    assert (own.embed(faces) * first).sum(1).min() < 0.99
    assert own.path.startswith(("float32", "bfloat16"))


def test_the_way_is_told_with_what_making_it_took(model: Embedder, faces: np.ndarray) -> None:
    own = Embedder.create(model.config)
    assert own.path == ""
    own.embed(faces)
    assert "(" not in own.path  # nothing is made for a handful of images
    assert own._fast is not None
    way, own._fast.seconds = own.path, 12.34
    assert own.path == f"{way} (12.3 s)"


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


def test_conventions_survive_saving(tmp_path: Path) -> None:
    kept = Preprocessing(112, 0.0, 255.0, width=96, flip="concat", quality="norm")
    Embedder.create(ModelConfig("sphere20", 8), kept).save(tmp_path / "model")
    assert Embedder.load(tmp_path / "model").preprocessing == kept
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["preprocessing"]["flip"] = "sideways"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"flip is 'sideways': choose add, concat or none"):
        Embedder.load(tmp_path / "model")


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
