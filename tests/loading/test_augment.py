"""Changes of images: a function of seed, epoch and record alone, each operation near what it says, labels kept."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginface.errors import InputError
from marginface.loading.augment import AugmentConfig, augment

OFF = AugmentConfig(flip=0)
ALL = AugmentConfig(
    geometric=0.9, photometric=0.7, colour=0.5, grey=0.2, side_light=0.5, blur=0.4, low_res=0.4, cut_out=0.5
)
OPERATIONS = ["flip", "geometric", "photometric", "colour", "grey", "side_light", "blur", "low_res", "cut_out"]


def pictures(count: int, height: int = 112, width: int = 112) -> np.ndarray:
    small = np.random.default_rng(1).integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) for image in small])


IMAGES = pictures(12)
INDICES = np.arange(100, 112)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 12), st.integers(0, 2**63), st.integers(0, 10**6))
def test_independent_of_the_batch(order: list[int], size: int, seed: int, epoch: int) -> None:
    whole = augment(IMAGES, INDICES, epoch, seed, ALL)
    for start in range(0, 12, size):
        rows = np.array(order[start : start + size])
        assert (augment(IMAGES[rows], INDICES[rows], epoch, seed, ALL) == whole[rows]).all()
    assert (augment(list(IMAGES), INDICES, epoch, seed, ALL) == whole).all()


def test_seed_epoch_and_record_all_matter() -> None:
    same = np.repeat(IMAGES[:1], 3, axis=0)
    a = augment(same, np.array([1, 1, 2]), 0, 0, ALL)
    assert (a[0] == a[1]).all()
    assert (a[0] != a[2]).any()
    assert (a != augment(same, np.array([1, 1, 2]), 1, 0, ALL)).any()
    assert (a != augment(same, np.array([1, 1, 2]), 0, 1, ALL)).any()


def test_the_input_is_not_touched_and_off_means_off() -> None:
    before = IMAGES.copy()
    assert (augment(IMAGES, INDICES, 0, 0, OFF) == before).all()
    augment(IMAGES, INDICES, 0, 0, replace(ALL, **dict.fromkeys(OPERATIONS, 1.0)))
    assert (before == IMAGES).all()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_probabilities(operation: str) -> None:
    images, indices = np.repeat(pictures(1, 24, 20), 800, axis=0), np.arange(800)
    changed = (augment(images, indices, 3, 7, replace(OFF, **{operation: 0.3})) != images).any(axis=(1, 2, 3))
    assert 0.24 < changed.mean() < 0.36


@pytest.mark.parametrize("operation", OPERATIONS[1:])
def test_operations_keep_the_picture_recognisable(operation: str) -> None:
    """Every operation at full strength stays closer to its own picture than to any other."""
    changed = augment(IMAGES, INDICES, 0, 0, replace(OFF, **{operation: 1.0})).reshape(12, -1).astype(float)
    original = IMAGES.reshape(12, -1).astype(float)
    correlation = np.corrcoef(changed, original)[:12, 12:]
    assert (correlation.argmax(axis=1) == np.arange(12)).all()


def test_flip_is_a_mirror() -> None:
    assert (augment(IMAGES, INDICES, 0, 0, AugmentConfig(flip=1)) == IMAGES[:, :, ::-1]).all()


def test_grey_has_equal_channels_of_the_same_luma() -> None:
    grey = augment(IMAGES, INDICES, 0, 0, replace(OFF, grey=1))
    assert (np.ptp(grey, axis=3) == 0).all()
    assert np.abs(grey[..., 0] - IMAGES @ [0.299, 0.587, 0.114]).max() <= 1


def test_motion_stays_within_its_ranges() -> None:
    """A disc in the middle moves, grows and never leaves what the configuration allows."""
    image = np.zeros((101, 101, 3), np.uint8)
    cv2.circle(image, (50, 50), 20, (255, 255, 255), -1)
    config = replace(OFF, geometric=1, shift=0.1, scale=0.2, stretch=0, rotate=180)
    discs = augment(np.repeat(image[None], 200, axis=0), np.arange(200), 0, 0, config)[..., 0] / 255
    rows, columns = np.mgrid[:101, :101]
    mass = discs.sum((1, 2))
    centres = np.stack([(discs * columns).sum((1, 2)), (discs * rows).sum((1, 2))], 1) / mass[:, None] - 50
    sizes = np.sqrt(mass / (image[..., 0] / 255).sum())
    assert 9.5 < np.abs(centres).max() < 10.3
    assert 1 / 1.2 - 0.02 < sizes.min() < 0.86
    assert 1.17 < sizes.max() < 1.2 + 0.02


def test_cut_out_covers_at_most_its_share() -> None:
    images = np.full((1000, 32, 32, 3), 128, np.uint8)
    images[:, ::2] = 100  # no row like the mean
    changed = (augment(images, np.arange(1000), 0, 0, replace(OFF, cut_out=1, cut_out_area=0.25)) != images).any(3)
    assert 0.2 < changed.mean(axis=(1, 2)).max() < 0.27
    assert changed.any(axis=0).mean() > 0.98


def test_other_shapes_and_an_empty_batch() -> None:
    images = pictures(3, 112, 96)
    assert augment(images, np.arange(3), 0, 0, replace(ALL, **dict.fromkeys(OPERATIONS, 1.0))).shape == images.shape
    assert augment(images[:0], np.arange(0), 0, 0, ALL).shape == (0, 112, 96, 3)


@pytest.mark.parametrize("name", [field.name for field in fields(AugmentConfig)])
def test_negative_values_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"data\.augment\.{name} is -0\.1"):
        AugmentConfig(**{name: -0.1})


def test_a_probability_above_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.augment\.blur is 1\.5: give a number that is 0 or more and at most 1"):
        AugmentConfig(blur=1.5)


def test_in_place() -> None:
    images = IMAGES.copy()
    assert augment(images, INDICES, 1, 2, ALL, out=images) is images
    assert (images == augment(IMAGES, INDICES, 1, 2, ALL)).all()
