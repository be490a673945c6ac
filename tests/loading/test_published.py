"""Published augmentations: each parameter has its published range and distribution, each operation its definition."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torchvision.transforms import RandomResizedCrop

from marginface.faces.template import template
from marginface.loading import published
from marginface.loading.augment import PUBLISHED, AugmentConfig, augment
from marginface.loading.draws import more, noise, uniform

GOLDEN = Path(__file__).parent / "published.png"
DRAWS = uniform(np.arange(4000), 0, 5, 16)


def picture(size: int = 112, seed: int = 1) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def is_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Kolmogorov and Smirnov: within the range, and nowhere far from the straight line."""
    values = np.sort(values)
    assert low <= values[0] <= values[-1] <= high
    steps = np.arange(len(values)) / len(values)
    assert np.abs((values - low) / (high - low) - steps).max() < 1.95 / np.sqrt(len(values))


def test_draws_are_uniform_and_those_made_of_one_too() -> None:
    for column in DRAWS.T:
        is_uniform(column, 0, 1)
    made = np.stack([more(u, 8) for u in DRAWS[:, 0]])
    for column in made.T:
        is_uniform(column, 0, 1)
    assert np.abs(np.corrcoef(made.T) - np.eye(8)).max() < 0.06
    counts = np.bincount(noise(0.3, (300, 300)).ravel(), minlength=256)
    assert counts.min() > 280
    assert counts.max() < 430


def test_earlier_draws_do_not_depend_on_how_many_there_are() -> None:
    assert (uniform(np.arange(9), 2, 3, 64)[:, :32] == uniform(np.arange(9), 2, 3, 32)).all()


def test_crop_box_is_that_of_random_resized_crop() -> None:
    boxes = np.array([published.crop_box(112, 112, u) for u in DRAWS[:, 1]])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (top + height <= 112).all()
    assert (left + width <= 112).all()
    area, ratio = height * width / 112**2, width / height
    assert 0.19 < area.min() < 0.21
    assert area.max() == 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    small = area < 0.6  # every such box fits, so that nothing was drawn again
    is_uniform((area[small] - 0.2 + 1e-3) / 0.41, 0, 1)
    is_uniform(np.log(ratio[small]), np.log(0.735), np.log(1.36))
    rest = 112 - height > 20
    is_uniform(((top[rest] + 0.5) / (113 - height[rest])), 0, 1)


def test_crop_box_against_torchvision() -> None:
    torch.manual_seed(0)
    image = torch.zeros(3, 112, 112)
    theirs = [RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    ours = [published.crop_box(112, 112, u) for u in DRAWS[:3000, 1]]
    for a, b in zip(np.sort(np.array(theirs), 0).T, np.sort(np.array(ours), 0).T, strict=True):
        assert np.abs(a - b).mean() < 1.5


def test_crop_stays_in_its_place_on_black() -> None:
    image = np.maximum(picture(), 1)
    for u in DRAWS[:20, 2]:
        top, left, height, width = published.crop_box(112, 112, u)
        out = published.adaface_crop(image, u)
        kept = np.zeros((112, 112), bool)
        kept[top : top + height, left : left + width] = True
        assert (out[kept] == image[kept]).all()
        assert (out[~kept] == 0).all()
    assert published.adaface_crop(image[:4, :2], 0.5).shape == (4, 2, 3)


def test_low_res_is_two_resizes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    resize = cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda im, size, interpolation: calls.append((size, interpolation)) or im)
    for draw in DRAWS:
        published.adaface_low_res(np.zeros((112, 112, 3), np.uint8), draw[:3])
    down, up = calls[0::2], calls[1::2]
    sides = np.array([size for size, _ in down])
    assert (sides[:, 0] == sides[:, 1]).all()
    assert (sides.min(), sides.max()) == (22, 111)
    is_uniform(sides[:, 0] + 0.5, 22, 112.5)
    assert {size for size, _ in up} == {(112, 112)}
    for way in (down, up):
        shares = np.bincount([published.RESAMPLINGS.index(method) for _, method in way]) / len(way)
        np.testing.assert_allclose(shares, 0.2, atol=0.025)
    monkeypatch.setattr(cv2, "resize", resize)
    half = published.adaface_low_res(picture(), np.array([0.375, 0, 0]))  # side 56, nearest both ways
    assert (half == picture()[::2, ::2].repeat(2, 0).repeat(2, 1)).all()


@given(st.integers(0, 3999))
def test_photometric_is_pillows(row: int) -> None:
    draw = DRAWS[row, :4]
    image = Image.fromarray(picture(48, row))
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for step in published.ORDERS[int(6 * draw[3])]:
        image = kinds[step](image).enhance(0.5 + draw[step])
    ours = published.adaface_photometric(picture(48, row), draw)
    assert np.abs(ours.astype(int) - np.asarray(image)).max() <= 4  # each of three steps rounds, and is scaled after


def test_photometric_orders_are_equally_frequent() -> None:
    shares = np.bincount((6 * DRAWS[:, 3]).astype(int)) / len(DRAWS)
    np.testing.assert_allclose(shares, 1 / 6, atol=0.02)


def test_cut_out_covers_landmarks_and_at_most_its_share() -> None:
    image = np.full((112, 112, 3), 255, np.uint8)
    black = np.stack([published.openvino_cut_out(image, draw[:9])[..., 0] == 0 for draw in DRAWS[:1500]])
    areas = black.mean((1, 2))
    assert areas.max() <= 0.105
    points = np.rint(template(112, "openvino")).astype(int)
    covered = black[:, points[:, 1], points[:, 0]]
    assert covered.any(1).all()
    np.testing.assert_allclose(covered.mean(0), 0.4, atol=0.06)  # two of five on average
    single = areas[(DRAWS[:1500, 0] < 1 / 3)]
    assert 0.047 < single.min() < 0.052
    assert 0.095 < single.max() < 0.101
    assert single.mean() == pytest.approx(0.075, abs=0.003)


def test_rotation_is_within_ten_degrees_about_the_middle() -> None:
    """A bar through the middle: its direction is the angle that was drawn."""
    bar = np.zeros((101, 101, 3), np.uint8)
    bar[48:53] = 255
    angles = []
    for u in DRAWS[:500, 4]:
        turned = published.openvino_rotation(bar, u)[:, 10:91, 0].astype(float)
        heights = 50 - (np.arange(101)[:, None] * turned).sum(0) / turned.sum(0)
        angles.append(np.rad2deg(np.arctan(np.polyfit(np.arange(-40, 41), heights, 1)[0])))
    np.testing.assert_allclose(angles, 20 * DRAWS[:500, 4] - 10, atol=0.1)


def test_blurs_keep_the_mean_and_have_their_length() -> None:
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 250
    assert (published.openvino_blur(point)[13:18, 13:18] == 10).all()
    assert np.count_nonzero(published.openvino_blur(point)) == 75
    lengths = []
    for draw in DRAWS[:400]:
        blurred = published.motion_blur(point, draw[:2])[..., 0]
        assert abs(int(blurred.sum()) - 250) <= 12  # each pixel is rounded
        y, x = np.nonzero(blurred > 8)
        lengths.append(max(np.ptp(y), np.ptp(x)) + 1)
    assert (min(lengths), max(lengths)) == (2, 9) or (min(lengths), max(lengths)) == (3, 9)
    flat = np.full((9, 9, 3), 77, np.uint8)
    assert (published.motion_blur(flat, DRAWS[0, :2]) == 77).all()


def test_jpeg_quality_has_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    qualities = []
    encode = published.simplejpeg.encode_jpeg
    monkeypatch.setattr(
        published.simplejpeg, "encode_jpeg", lambda im, **o: qualities.append(o["quality"]) or encode(im, **o)
    )
    errors = [np.abs(published.jpeg(picture(), u).astype(int) - picture()).mean() for u in DRAWS[:300, 5]]
    assert (min(qualities), max(qualities)) == (30, 95)
    assert np.corrcoef(qualities, errors)[0, 1] < -0.5


def test_erasing_is_algorithm_1() -> None:
    boxes = np.array([published.erasing_box(112, 112, u) for u in DRAWS[:, 6]])
    top, left, height, width = boxes.T
    assert height.min() > 0
    assert (top + height <= 112).all()
    assert (left + width <= 112).all()
    area, ratio = height * width / 112**2, height / width
    assert 0.018 < area.min() < 0.025
    assert 0.38 < area.max() <= 0.4
    assert 0.28 < ratio.min() < 0.36
    assert 3 < ratio.max() < 3.6
    small = area < 0.25  # every such box fits
    is_uniform(area[small], 0.018, 0.25)
    assert np.median(ratio[small]) == pytest.approx((0.3 + 1 / 0.3) / 2, abs=0.12)
    image = picture()
    changed = (published.erasing(image, DRAWS[0, :2]) != image).any(2)
    top, left, height, width = published.erasing_box(112, 112, DRAWS[0, 0])
    assert not changed[:top].any()
    assert changed[top : top + height, left : left + width].mean() > 0.98


@pytest.mark.parametrize("name", PUBLISHED)
def test_probabilities(name: str) -> None:
    images, indices = np.repeat(picture(32)[None], 600, axis=0), np.arange(600)
    changed = (augment(images, indices, 3, 7, AugmentConfig(flip=0, **{name: 0.3})) != images).any(axis=(1, 2, 3))
    assert 0.23 < changed.mean() < 0.37


def test_independent_of_the_batch() -> None:
    everything = AugmentConfig(**dict.fromkeys(PUBLISHED, 0.5))
    images, indices = np.stack([picture(48, seed) for seed in range(16)]), np.arange(16)
    whole = augment(images, indices, 1, 2, everything)
    for row in range(16):
        assert (augment(images[row : row + 1], indices[row : row + 1], 1, 2, everything)[0] == whole[row]).all()
    assert (images == np.stack([picture(48, seed) for seed in range(16)])).all()


def sheet() -> np.ndarray:
    """A row an operation: three draws of one picture."""
    rows = []
    for name in (*PUBLISHED, "flip", "geometric", "photometric", "colour", "grey", "side_light", "blur", "low_res"):
        config = AugmentConfig(**{"flip": 0.0, name: 1.0})
        rows.append(np.concatenate(augment(np.repeat(picture(32)[None], 3, 0), np.arange(3), 0, 0, config), axis=1))
    return np.concatenate(rows)


def test_golden() -> None:
    """As on the day they were checked by eye; libraries may round and resample a little otherwise."""
    golden = cv2.cvtColor(cv2.imread(str(GOLDEN)), cv2.COLOR_BGR2RGB).astype(int)
    difference = np.abs(golden - sheet())
    assert np.percentile(difference, 99) <= 3
    assert difference.mean() < 0.3


if __name__ == "__main__":
    cv2.imwrite(str(GOLDEN), cv2.cvtColor(sheet(), cv2.COLOR_RGB2BGR))
