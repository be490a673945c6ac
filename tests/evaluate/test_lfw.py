"""LFW as OpenVINO's trainer reports it: its crop by its own formula, its figures, and lists that do not fit."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import golden_files
from marginface.align import align_faces
from marginface.embedder import Embedder, ModelConfig, Preprocessing
from marginface.errors import InputError
from marginface.evaluate import open_benchmark
from marginface.evaluate.embeddings import Embeddings, embed_images
from marginface.evaluate.lfw import OPENVINO_TEMPLATE, LfwBenchmark, openvino_crop, read_points
from marginface.faces.template import ARCFACE_112
from marginface.gallery.models import open_model
from marginface.gallery.photos import read_photo
from marginface.protocols.pairs import stored_pairs
from marginface.readers import open_reader
from people import write_people


def test_the_crop_puts_points_where_the_trainer_does() -> None:
    """Orthogonal Procrustes by SVD, scaled by the ratio of the spreads, says where each target point comes from."""
    random = np.random.default_rng(0)
    for _ in range(20):
        angle, scale = random.uniform(-0.6, 0.6), random.uniform(0.5, 3)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = (ARCFACE_112 - 56) @ turn.T + 125 + random.normal(0, 2, (5, 2))
        target = OPENVINO_TEMPLATE * 400
        p, q = target - target.mean(0), points - points.mean(0)
        u, _, vt = np.linalg.svd((p / p.std()).T @ (q / q.std()))
        mapped = (q.std() / p.std()) * p @ (u @ vt) + points.mean(0)  # where the reference looks the targets up
        spots = np.zeros((250, 250, 3), np.uint8)
        x, y = np.clip(mapped[2].round().astype(int), 2, 247)
        cv2.rectangle(spots, (int(x) - 2, int(y) - 2), (int(x) + 2, int(y) + 2), (255, 255, 255), -1)
        found = np.argwhere(openvino_crop(spots, points, 400)[..., 0] > 0).mean(axis=0)[::-1]
        np.testing.assert_allclose(found, target[2], atol=400 / 96 / scale + 2)


def test_points_on_the_template_give_the_stretched_face() -> None:
    random = np.random.default_rng(1)
    picture = cv2.GaussianBlur(random.integers(0, 256, (112, 96, 3), dtype=np.uint8), (0, 0), 3)
    stretched = cv2.resize(picture, (400, 400), interpolation=cv2.INTER_LINEAR)
    crop = openvino_crop(stretched, OPENVINO_TEMPLATE * 400, 112)
    np.testing.assert_allclose(crop, cv2.resize(stretched, (112, 112)), atol=1)
    with pytest.raises(ValueError, match="coincide"):
        openvino_crop(picture, np.ones((5, 2)), 112)


def is_logged(name: str) -> bool:
    """Whether the trainer's log is there, of embeddings that are normalised and not zero."""
    entry = golden_files.entry(name)
    if "openvino_log" not in entry or "not normalised" in entry["description"]:
        return False
    return bool(np.any(golden_files.arrays(name)["embeddings"], axis=1).all())


LOGGED = [name for name in golden_files.entries("verification/") if is_logged(name)]


@pytest.mark.parametrize("name", LOGGED)
def test_the_log_lines_of_the_trainer(name: str) -> None:
    entry, arrays = golden_files.entry(name), golden_files.arrays(name)
    pairs = stored_pairs(arrays["issame"], name)
    (result,) = LfwBenchmark(pairs, None).score(Embeddings(arrays["embeddings"]), "m", 0)  # type: ignore[arg-type]
    wanted = [float(line.rpartition(" ")[2]) for line in entry["openvino_log"]]
    np.testing.assert_allclose(list(result.figures.values()), wanted, atol=5.1e-5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight people in the layout of LFW, two folds."""
    folder = tmp_path / "set"
    write_people(folder / "photos", people=8, images=2, size=250)
    landmarks, pairs = [], ["2\t2"]
    for person in range(8):
        for number in (1, 2):
            numbers = "\t".join(f"{value:.1f}" for value in (ARCFACE_112 + 69).ravel())
            landmarks.append(f"p{person:02d}/p{person:02d}_{number:04d}.jpg\t{numbers}")
    for fold in (0, 4):
        pairs += [f"p{fold + i:02d}\t1\t2" for i in range(2)]
        pairs += [f"p{fold + i:02d}\t1\tp{fold + i + 2:02d}\t2" for i in range(2)]
    (folder / "lfw_landmark.txt").write_text("\n".join(landmarks) + "\n")
    (folder / "pairs.txt").write_text("\n".join(pairs) + "\n")
    return folder


def test_opens_the_layout_and_aligns_either_way(root: Path) -> None:
    (root / "mine.txt").write_text((root / "pairs.txt").read_text())
    wide = open_benchmark(f"lfw:{root}")
    square = open_benchmark(f"lfw:{root},align=arcface,pairs=mine.txt")
    assert len(wide.images) == len(square.images) == 12
    assert wide.images.take([0], 112, "openvino").shape == (1, 112, 112, 3)
    assert not np.array_equal(wide.images.take([0], 112, "openvino"), square.images.take([0], 112, "openvino"))
    np.testing.assert_array_equal(wide.images.take([0], 112, "arcface"), square.images.take([0], 112))
    trainer = open_benchmark(f"lfw:{root},align=openvino")
    np.testing.assert_array_equal(trainer.images.take([0], 112), trainer.images.take([0], 112, "openvino"))
    assert wide.picture(0).shape == (112, 112, 3)


@pytest.mark.parametrize("template", ["arcface", "openvino"])
def test_one_pair_has_one_similarity_in_every_verb(root: Path, tmp_path: Path, template: str) -> None:
    """Through lfw:, the gallery's network and faces that align wrote."""
    torch.manual_seed(0)
    preprocessing = Preprocessing(112, 0.0, 255.0, template=template)  # type: ignore[arg-type]
    model = Embedder.create(ModelConfig("small", 16, {"width": 4}), preprocessing)
    model.save(tmp_path / "model")
    photos = [root / "photos" / "p00" / f"p00_{number:04d}.jpg" for number in (1, 2)]
    points = np.tile(ARCFACE_112 + 69, (2, 1, 1)).round(1)
    benchmark = open_benchmark(f"lfw:{root}")
    rows = [benchmark.images.keys.index(f"p00/{photo.name}") for photo in photos]
    vectors = embed_images(model, benchmark.images).fused[rows]
    wanted = float(np.prod([1 / np.linalg.norm(v) for v in vectors]) * (vectors[0] @ vectors[1]))
    network = open_model(str(tmp_path / "model"))
    pictures = [read_photo(photo) for photo in photos]
    seen, _ = network.embed([network.crop(picture, own) for picture, own in zip(pictures, points, strict=True)])
    align_faces(open_reader(root / "lfw_landmark.txt"), tmp_path / "faces", 112, template=template)
    faces = [read_photo(tmp_path / "faces" / "p00" / f"{photo.stem}.png") for photo in photos]
    aligned = model.embed(np.stack(faces))
    assert seen[0] @ seen[1] == pytest.approx(wanted, abs=1e-5)
    assert aligned[0] @ aligned[1] == pytest.approx(wanted, abs=2e-3)  # it may embed in bfloat16
    other = Embedder(model.backbone, model.config, replace(preprocessing, template="arcface"))
    same = np.allclose(embed_images(other, benchmark.images).fused[rows], vectors)
    assert same == (template == "arcface")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("lfw_landmark.txt", "p00/p00_0001.jpg", "gone/gone_0001.jpg"), r"no points for 1 of the 12 .*p00_0001"),
        (("lfw_landmark.txt", "\t107.3\t", "\tx\t"), r"lfw_landmark.txt line 1"),
        (("pairs.txt", "p00\t1\t2", "p00\t1\t9"), r"1 of the 12 pictures .* are not in .*first: p00 9"),
        (("pairs.txt", "2\t2\n", "2\t3\n"), r"pairs.txt announces 2 folds of 3"),
    ],
)
def test_lists_that_do_not_fit_are_refused(root: Path, damage: tuple[str, str, str], message: str) -> None:
    file = root / damage[0]
    assert damage[1] in file.read_text()
    file.write_text(file.read_text().replace(damage[1], damage[2], 1))
    with pytest.raises(InputError, match=message):
        open_benchmark(f"lfw:{root}")


def test_words_and_folders_are_checked(root: Path) -> None:
    with pytest.raises(InputError, match="align is one of openvino, arcface"):
        open_benchmark(f"lfw:{root},align=dlib")
    with pytest.raises(InputError, match=r"'fold' is no option .* pairs=\.\.\., landmarks=\.\.\., align="):
        open_benchmark(f"lfw:{root},fold=3")
    (root / "photos").rename(root.parent / "elsewhere")
    with pytest.raises(InputError, match="hold none of the 16 photographs with points"):
        open_benchmark(f"lfw:{root}")
    with pytest.raises(InputError, match="landmarks=FILE"):
        open_benchmark(f"lfw:{root},landmarks=none.txt")


def test_points_of_a_person_whose_name_begins_with_the_mark_of_a_comment(tmp_path: Path) -> None:
    numbers = " ".join(map(str, range(10)))
    text = f"# points\n#1/#1_0001.jpg {numbers}\n# by hand, 1 picture\nAnn/Ann_0001.jpg {numbers}\n"
    (tmp_path / "points.txt").write_text(text)
    assert list(read_points(tmp_path / "points.txt")) == ["#1/#1_0001.jpg", "Ann/Ann_0001.jpg"]
