"""Procedural faces: the same bytes whatever is read with them, true points, people that are not each other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginface.errors import InputError
from marginface.readers.base import Reader
from marginface.readers.folder import FolderReader
from marginface.readers.synthetic import SyntheticFaces, write_folder
from marginface.readers.synthetic_render import render
from marginface.readers.synthetic_scene import Pose, Scene, mouth_curve, mouth_half_width, mouth_y, place
from marginface.readers.synthetic_traits import PERSON, PHOTO, draw


def images_of(reader: Reader, indices: list[int]) -> np.ndarray:
    images = [record.image for record in reader.read(indices)]
    assert all(isinstance(image, np.ndarray) for image in images)
    return np.stack(images)  # type: ignore[arg-type]


def test_is_a_reader() -> None:
    reader: Reader = SyntheticFaces(3, 4, first_identity=12)
    assert len(reader) == 12
    assert reader.num_classes == 3
    assert reader.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    record = reader.read([7])[0]
    assert isinstance(record.image, np.ndarray)
    assert record.image.shape == (112, 112, 3)
    assert record.image.dtype == np.uint8
    assert (record.label, record.key) == (1, "id00013/0003")
    assert record.points is not None
    assert record.points.shape == (5, 2)
    assert record.points.dtype == np.float32
    assert reader.read([]) == []


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=20), st.integers(0, 2**40))
def test_an_image_depends_on_nothing_but_itself(indices: list[int], seed: int) -> None:
    reader = SyntheticFaces(10, 6, seed=seed, size=48)
    together = reader.read(indices)
    for position in {0, len(indices) - 1}:
        alone = reader.read([indices[position]])[0]
        assert alone.key == together[position].key
        np.testing.assert_array_equal(alone.image, together[position].image)
        np.testing.assert_array_equal(alone.points, together[position].points)


def test_does_not_depend_on_the_size_of_the_set() -> None:
    small, large = SyntheticFaces(3, 2, seed=5, first_identity=7), SyntheticFaces(20, 9, seed=5)
    np.testing.assert_array_equal(images_of(small, [3]), images_of(large, [8 * 9 + 1]))


def test_threads_agree() -> None:
    reader = SyntheticFaces(4, 10, size=48)
    parts = [list(range(start, 40, 4)) for start in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for part, images in zip(parts, pool.map(lambda part: images_of(reader, part), parts), strict=True):
            np.testing.assert_array_equal(images, images_of(reader, part))


def test_seed_person_and_photograph_all_matter() -> None:
    base = images_of(SyntheticFaces(2, 2), [0, 1, 2])
    assert len({image.tobytes() for image in base}) == 3
    assert not np.array_equal(base[:1], images_of(SyntheticFaces(2, 2, seed=1), [0]))
    assert not np.array_equal(base[:1], images_of(SyntheticFaces(2, 2, first_identity=1), [0]))


def test_a_person_keeps_their_traits_and_a_photograph_does_not() -> None:
    traits = draw(0, np.repeat(np.arange(50), 4), np.tile(np.arange(4), 50))
    fixed = ["head_width", "eye_x", "nose_y", "mouth_gap", "skin_rgb", "eye_rgb", "mole1_x"]
    for name in fixed:
        grouped = traits[name].reshape(50, 4, -1)
        assert np.ptp(grouped, axis=1).max() == 0
        assert np.ptp(grouped, axis=0).max() > 0
    for name in PHOTO:
        assert np.ptp(traits[name].reshape(50, 4), axis=1).min() > 0


@pytest.mark.parametrize("table", [PERSON, PHOTO], ids=["person", "photo"])
def test_draws_fill_their_ranges_independently(table: dict[str, tuple[float, float]]) -> None:
    people = np.arange(4000) if table is PERSON else np.zeros(4000, int)
    traits = draw(3, people, np.arange(4000))
    names = [name for name in table if name in PHOTO or name in ("head_width", "nose_y", "brow_y", "skin", "eye_x")]
    values = np.stack([traits[name].reshape(-1) for name in names])
    for name, drawn in zip(names, values, strict=True):
        low, high = table[name]
        middle, spread = (low, high) if name.endswith("_n") else ((low + high) / 2, (high - low) / 12**0.5)
        assert drawn.mean() == pytest.approx(middle, abs=5 * spread / 4000**0.5)
        assert drawn.std() == pytest.approx(spread, rel=0.08)
    correlation = np.corrcoef(values) - np.eye(len(names))
    assert np.abs(correlation).max() < 0.09


def test_points_lie_where_the_features_are_drawn() -> None:
    traits = draw(1, np.arange(40), np.arange(40))
    placement = place(traits, 112)
    scene, points = placement.scene(slice(None)), placement.points
    nose, t = points[:, 2], traits
    corner, height = mouth_half_width(t), mouth_y(t) + mouth_curve(t)
    surface = [(-t["eye_x"], 0 * corner), (t["eye_x"], 0 * corner), (-corner, height), (corner, height)]
    for (x, y), column in zip(surface, (0, 1, 3, 4), strict=True):
        seen = nearest_pixel(scene, x, y)
        visible = scene.rho[np.arange(40), seen[:, 1], seen[:, 0]] < 0.97
        assert visible.mean() > 0.8
        assert np.abs(seen - points[:, column])[visible].max() < 1
    assert np.abs(nearest_pixel(scene, scene.nose_x, scene.nose_y) - nose).max() < 1.5


def nearest_pixel(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(B, 2) pixel whose ray meets the head nearest to the surface point (x, y)."""
    away = (scene.x - x) ** 2 + (scene.y - y) ** 2 + np.where(scene.rho < 1, 0, 100)
    flat = away.reshape(len(away), -1).argmin(axis=1)
    return np.stack([flat % 112, flat // 112], axis=1)


def test_rays_meet_the_ellipsoid() -> None:
    """A ray that is cast through the image of a visible surface point comes back to that point."""
    traits = draw(2, np.arange(200), np.arange(200))
    pose = Pose(traits)
    x, y = np.full((200, 1, 1), 0.3, np.float32), np.full((200, 1, 1), 0.5, np.float32)
    seen, rho = pose.cast(*pose.project(x, y))
    assert (rho < 1).all()
    np.testing.assert_allclose(seen[:, 0], x, atol=2e-4)
    np.testing.assert_allclose(seen[:, 1], y, atol=2e-4)


def test_faces_are_roughly_aligned() -> None:
    points = np.stack([record.points for record in SyntheticFaces(100, 2, size=32).read(range(200))]) / 32 * 112
    left, right, nose, left_mouth, right_mouth = points.mean(axis=0)
    assert np.abs(left - (40, 52)).max() < 4
    assert np.abs(right - (72, 52)).max() < 4
    assert abs(nose[0] - 56) < 2
    assert left[1] < nose[1] < left_mouth[1]
    assert np.abs(points - points.mean(axis=0)).max() < 25
    assert (right_mouth[0] - left_mouth[0]) == pytest.approx(25, abs=5)


@pytest.mark.parametrize("size", [32, 64, 112, 224])
def test_sizes_show_the_same_picture(size: int) -> None:
    record = SyntheticFaces(1, 1, seed=4, size=size).read([0])[0]
    large = SyntheticFaces(1, 1, seed=4, size=256).read([0])[0]
    assert isinstance(large.image, np.ndarray)
    assert record.points is not None
    assert large.points is not None
    np.testing.assert_allclose((record.points + 0.5) / size, (large.points + 0.5) / 256, atol=1e-4)
    shrunk = cv2.resize(large.image, (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(float) - record.image).mean() < 12


def test_pictures_are_neither_dark_nor_burnt() -> None:
    images = images_of(SyntheticFaces(40, 2), list(range(80))).astype(float)
    assert 80 < images.mean() < 150
    assert images.std(axis=(1, 2, 3)).min() > 10
    assert (images.mean(axis=(1, 2, 3)) < 25).mean() < 0.05
    assert (images >= 255).mean() < 0.06


def test_windows_only_save_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features painted over the whole frame give the same pictures as painted in their windows."""
    traits = draw(3, np.arange(32), np.arange(32))
    windowed, _ = render(traits, 112)
    whole = Scene.within
    monkeypatch.setattr(
        Scene, "within", lambda self, do, spot, h, w, chosen=None: whole(self, do, spot, 1.0, 1.0, chosen)
    )
    full, _ = render(traits, 112)
    differ = np.abs(full.astype(int) - windowed).max(axis=(1, 2, 3))
    assert (differ <= 3).mean() > 0.9


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_writes_itself_as_a_folder(tmp_path: Path, suffix: str) -> None:
    reader = SyntheticFaces(3, 2, size=48)
    write_folder(reader, tmp_path / "faces", suffix)
    assert sorted(str(file.relative_to(tmp_path / "faces")) for file in (tmp_path / "faces").rglob("*.*")) == [
        f"id{person:05d}/{number:04d}{suffix}" for person in range(3) for number in range(2)
    ]
    again = FolderReader(tmp_path / "faces")
    assert again.labels.tolist() == reader.labels.tolist()
    for written, record in zip(again.read(range(6)), reader.read(range(6)), strict=True):
        assert isinstance(written.image, bytes)
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(written.image, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert np.abs(image.astype(int) - record.image).mean() <= (0 if suffix == ".png" else 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "at least 1"),
        ((5, 0), "at least 1"),
        ((5, 5, 0, -1), "first_identity"),
        ((5, 5, 0, 0, 16), "32 to 512"),
        ((5, 5, -1), "seed"),
    ],
)
def test_refuses(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SyntheticFaces(*arguments)


@pytest.mark.parametrize("index", [-1, 6])
def test_refuses_a_record_it_does_not_have(index: int) -> None:
    with pytest.raises(InputError, match=f"record {index}"):
        SyntheticFaces(3, 2).read([0, index])


def test_refuses_an_unknown_image_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="webp"):
        write_folder(SyntheticFaces(1, 1), tmp_path / "faces", ".webp")
    assert not (tmp_path / "faces").exists()
