"""Detectors: what they answer, how they are chosen, and that the packaged one finds the people in real photographs."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface.detection import list_detectors, most_central, open_detector
from marginface.detection.base import Faces, suppress
from marginface.detection.mtcnn import Mtcnn
from marginface.detection.scrfd import STRIDES, decode_outputs
from marginface.detection.yunet import faces_of
from marginface.errors import InputError


def overlap(a: np.ndarray, b: np.ndarray, of_smaller: bool) -> float:
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (min(areas) if of_smaller else sum(areas) - common)


@pytest.mark.parametrize("of_smaller", [False, True])
def test_suppression_as_the_definition_says(of_smaller: bool) -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 60, (80, 2))
    boxes = np.hstack([corner, corner + random.uniform(10, 40, (80, 2))])
    scores = random.uniform(size=80)
    kept: list[int] = []
    for row in np.argsort(-scores):
        if all(overlap(boxes[row], boxes[other], of_smaller) <= 0.4 for other in kept):
            kept.append(int(row))
    assert suppress(boxes, scores, 0.4, of_smaller).tolist() == kept
    assert len(kept) < 80
    assert len(suppress(np.empty((0, 4)), np.empty(0), 0.4)) == 0


def test_the_main_face_is_large_and_central() -> None:
    boxes = np.array([[0, 0, 60, 60], [80, 80, 130, 130], [95, 95, 105, 105]], np.float32)
    faces = Faces.sorted(boxes, np.zeros((3, 5, 2)), np.array([0.7, 0.8, 0.9]))
    assert faces.boxes[most_central(faces, 200, 200)].tolist() == [80, 80, 130, 130]
    assert faces.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_scrfd_outputs_become_faces() -> None:
    side, outputs = 64, []
    for size in (1, 4, 10):
        outputs += [np.zeros(((side // stride) ** 2 * 2, size), np.float32) for stride in STRIDES]
    row = (2 * (side // 16) + 1) * 2 + 1  # stride 16, row 2, column 1, the second anchor: middle (16, 32)
    outputs[1][row], outputs[4][row] = 0.9, [0.5, 1, 1, 1.5]
    outputs[7][row] = np.arange(10) / 10
    faces = decode_outputs(outputs, side, 0.5)
    assert faces.boxes.tolist() == [[16 - 8, 32 - 16, 16 + 16, 32 + 24]]
    np.testing.assert_allclose(faces.points[0], np.arange(10).reshape(5, 2) * 1.6 + [16, 32], rtol=1e-6)
    assert faces.scores.tolist() == pytest.approx([0.9])


def test_yunet_rows_become_faces_of_the_whole_image() -> None:
    row = np.array([[10, 20, 30, 40, *range(10), 0.8]], np.float32)
    faces = faces_of(row, 0.5)
    assert faces.boxes.tolist() == [[20, 40, 80, 120]]
    assert faces.points[0, 4].tolist() == [16, 18]
    assert len(faces_of(None, 1.0)) == 0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("retina", "detector 'retina' is not understood; give mtcnn"),
        ("scrfd", "is not understood"),
        ("mtcnn:file.onnx", "is not understood"),
        ("yunet:nowhere.onnx", "nowhere.onnx is not there; give the path"),
    ],
)
def test_what_cannot_be_opened_is_answered(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_detector(spec)


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no network")
    for name in ("scrfd", "yunet"):
        with pytest.raises(InputError, match=r"a\.onnx cannot be read as"):
            open_detector(f"{name}:{tmp_path / 'a.onnx'}")


@pytest.fixture(scope="module")
def mtcnn() -> Mtcnn:
    return Mtcnn()


def test_nothing_is_found_in_nothing(mtcnn: Mtcnn) -> None:
    for shape in ((240, 320, 3), (5, 7, 3), (1, 1, 3), (1, 2_000_000, 3)):
        assert len(mtcnn(np.zeros(shape, np.uint8))) == 0


@pytest.mark.lfw
def test_people_are_found_where_they_are(mtcnn: Mtcnn, lfw_root: Path) -> None:
    rows = [line.split("\t") for line in (lfw_root / "lfw_landmark.txt").read_text().splitlines()]
    errors = []
    for row in rows[:: len(rows) // 24]:
        image = cv2.imread(str(lfw_root / "images" / row[0]))[..., ::-1]
        given = np.array(row[1:11], float).reshape(5, 2)
        faces = mtcnn(image)
        points = faces.points[most_central(faces, *image.shape[:2])]
        errors.append(np.linalg.norm(points - given, axis=1).mean() / np.linalg.norm(given[1] - given[0]))
    assert np.median(errors) < 0.04
    assert np.max(errors) < 0.3


@pytest.mark.lfw
def test_a_larger_photograph_gives_the_same_points(mtcnn: Mtcnn, lfw_root: Path) -> None:
    image = cv2.imread(str(sorted((lfw_root / "images").glob("*/*.jpg"))[0]))[..., ::-1]
    large = cv2.resize(image, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)  # beyond the size that is scaled down
    a, b = mtcnn(image), mtcnn(large)
    apart = np.linalg.norm(a.points[0, 1] - a.points[0, 0])
    assert np.abs(b.points[0] / 6 - a.points[0]).max() < 0.08 * apart


@pytest.mark.lfw
def test_everyone_on_a_panorama_of_20_000_pixels(mtcnn: Mtcnn, lfw_root: Path) -> None:
    image = cv2.imread(str(sorted((lfw_root / "images").glob("*/*.jpg"))[0]))[..., ::-1]
    alone = mtcnn(image).points[0]
    found = mtcnn(np.tile(image, (1, 80, 1)))
    apart = np.linalg.norm(alone[1] - alone[0])
    places = found.points - found.points[:, :1] // 250 * [250, 0]
    assert np.sum(np.abs(places - alone).max((1, 2)) < 0.15 * apart) >= 78


def test_the_installed_ones_can_be_opened() -> None:
    assert list_detectors() == ["mtcnn", "dlib"]
    assert callable(open_detector())
