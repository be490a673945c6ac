"""A folder of known people: pairs, names, and degraded copies of images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import f1_score

from marginface.errors import InputError
from marginface.protocols.closed_set import read_closed_set
from marginface.protocols.degrade import open_degrade


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for person in "abcde":
        (tmp_path / person).mkdir()
        for number in range(4):
            (tmp_path / person / f"{number}.jpg").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_names_and_pairs_of_a_folder(folder: Path) -> None:
    found = read_closed_set(folder)
    assert found.names == list("abcde")
    assert found.enrolled.sum() == 5
    assert [path.name for path, own in zip(found.images, found.enrolled, strict=True) if own] == ["0.jpg"] * 5
    assert found.same.sum() == len(found.same) / 2 == 5 * 6
    np.testing.assert_array_equal(found.labels[found.first] == found.labels[found.second], found.same)


def test_figures_of_names_and_pairs(folder: Path) -> None:
    found = read_closed_set(folder, enrol=2)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(5, 6))[found.labels] + 0.8 * rng.normal(size=(20, 6))
    result = found.score(embeddings, replicates=20)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    gallery = np.stack([unit[(found.labels == i) & found.enrolled].mean(axis=0) for i in range(5)])
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    named = np.argmax(unit[~found.enrolled] @ gallery.T, axis=1)
    truth = found.labels[~found.enrolled]
    assert result.ranks[1] == np.mean(named == truth)
    assert result.figures["macro F1"] == pytest.approx(f1_score(truth, named, average="macro"))
    scores = np.sum(unit[found.first] * unit[found.second], axis=1)
    best = max(f1_score(found.same, scores > cut) for cut in [-2, *scores])
    assert result.figures["best pair F1"] == pytest.approx(best)
    assert result.ranks[5] == 1


def test_too_few_people_or_pictures_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"5 of 5 people in .* after enrolling 4 .first: a"):
        read_closed_set(folder, enrol=4)
    with pytest.raises(InputError, match="at least two people"):
        read_closed_set(folder / "a")
    with pytest.raises(InputError, match="at least two people"):
        read_closed_set(folder / "absent")


def test_degraded_images_lose_detail_and_keep_their_shape_and_colours() -> None:
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1)
    image[..., 0] //= 4
    for spec in ("blur:3", "jpeg:20", "downscale:4"):
        lost = open_degrade(spec)(image)
        assert lost.shape == image.shape
        assert lost.dtype == np.uint8
        assert np.abs(np.diff(lost.astype(float), axis=0)).mean() < np.abs(np.diff(image.astype(float), axis=0)).mean()
        np.testing.assert_allclose(lost.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=3)


@pytest.mark.parametrize("spec", ["blur", "blur:x", "blur:0", "jpeg:0", "jpeg:101", "downscale:1", "noise:3", ""])
def test_unknown_degradations_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="is not understood; give blur:SIGMA"):
        open_degrade(spec)
