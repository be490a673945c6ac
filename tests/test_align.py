"""`marginface align`: every photograph of a list, restartable, and honest about what it leaves out."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface import cli
from marginface.align import IN_A_ROW, TILE, align_faces, read_names
from marginface.detection import Faces
from marginface.errors import InputError
from marginface.faces.template import ARCFACE_112, crop_face, similarity
from marginface.loading.alignment import NOTE
from marginface.loading.decode import decode
from marginface.readers import open_reader


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A list of six photographs of three people, points as in lfw_landmark.txt; returns the list."""
    random = np.random.default_rng(0)
    lines = []
    for person in ("Ann_A", "Bob_B", "Eve_E"):
        (tmp_path / "images" / person).mkdir(parents=True)
        for number in (1, 2):
            key = f"{person}/{person}_{number:04d}.jpg"
            small = random.integers(0, 256, (10, 10, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "images" / key), cv2.resize(small, (250, 250), interpolation=cv2.INTER_CUBIC))
            points = ARCFACE_112 * 1.1 + random.uniform(50, 70, 2)
            lines.append("\t".join([key, *(f"{value:.2f}" for value in points.ravel())]))
    (tmp_path / "landmarks.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "landmarks.txt"


def test_every_face_is_written_once(photographs: Path, tmp_path: Path) -> None:
    reader = open_reader(photographs)
    done = align_faces(reader, tmp_path / "faces")
    assert (done.written, done.kept, done.refused) == (6, 0, {})
    face = cv2.cvtColor(cv2.imread(str(tmp_path / "faces/Bob_B/Bob_B_0002.png")), cv2.COLOR_BGR2RGB)
    record = reader.read([3])[0]
    photograph = cv2.cvtColor(cv2.imread(str(tmp_path / "images" / record.key)), cv2.COLOR_BGR2RGB)
    assert record.points is not None
    assert (face == crop_face(photograph, record.points)).all()
    (tmp_path / "faces/Bob_B/Bob_B_0002.png").unlink()
    again = align_faces(reader, tmp_path / "faces")
    assert (again.written, again.kept) == (1, 5)


def test_only_some_people(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Ann_A\t2\nEve_E\t2\n")
    cli.main(["align", str(photographs), str(tmp_path / "faces"), f"--people={tmp_path / 'names.txt'}"])
    assert sorted(path.name for path in (tmp_path / "faces").iterdir()) == [NOTE, "Ann_A", "Eve_E"]
    with pytest.raises(InputError, match=r"1 of 2 people are not in the set; the first: Zoe_Z"):
        align_faces(open_reader(photographs), tmp_path / "more", people={"Ann_A", "Zoe_Z"})


def test_damaged_photographs_are_named(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "Ann_A" / "Ann_A_0001.jpg").write_bytes(b"GIF89a")
    done = align_faces(open_reader(photographs), tmp_path / "faces")
    assert done.written == 5
    assert list(done.refused) == ["Ann_A/Ann_A_0001.jpg"]


def test_a_list_without_points_is_refused(photographs: Path, tmp_path: Path) -> None:
    names = [line.split("\t")[0] for line in photographs.read_text().splitlines()]
    photographs.write_text("".join(f"{name}\t{i // 2}\n" for i, name in enumerate(names)))
    with pytest.raises(InputError, match=r"none of 6 faces could be aligned; the first, .*no points"):
        align_faces(open_reader(photographs), tmp_path / "faces")


def test_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_names(tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InputError, match="names nobody"):
        read_names(tmp_path / "empty")


@pytest.mark.parametrize(("name", "size", "shape"), [("arcface96", 112, (112, 96)), ("openvino", 200, (200, 200))])
def test_other_templates_and_the_sheet(photographs: Path, tmp_path: Path, name: str, size: int, shape: object) -> None:
    words = [f"--template={name}", f"--size={size}", f"--sheet={tmp_path / 'sheet.png'}"]
    cli.main(["align", str(photographs), str(tmp_path / "faces"), *words])
    assert cv2.imread(str(tmp_path / "faces/Bob_B/Bob_B_0002.png")).shape[:2] == shape
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] == IN_A_ROW * TILE
    assert sheet[TILE // 2 :, :TILE].std() > 20


def test_wrong_points_come_first_in_the_sheet(photographs: Path, tmp_path: Path) -> None:
    lines = photographs.read_text().splitlines()
    key, *points = lines[4].split("\t")
    lines[4] = "\t".join([key, *points[2:], *points[:2]])  # every point is another
    photographs.write_text("\n".join(lines))
    done = align_faces(open_reader(photographs), tmp_path / "faces")
    again = align_faces(open_reader(photographs), tmp_path / "faces")
    assert done.fits == again.fits
    worst = max(done.fits, key=lambda name: done.fits[name].residual)
    assert worst == "Eve_E/Eve_E_0001.png"
    assert done.fits[worst].residual > 0.05 > 10 * done.fits["Ann_A/Ann_A_0001.png"].residual


def test_a_detector_finds_what_the_list_does_not_say(photographs: Path, tmp_path: Path) -> None:
    points = open_reader(photographs).read([0])[0].points
    asked = []

    def detect(picture: np.ndarray) -> np.ndarray | None:
        asked.append(picture.shape)
        return points if len(asked) > 1 else None

    done = align_faces(open_reader(tmp_path / "images"), tmp_path / "faces", detect=detect)
    assert (done.written, list(done.refused.values())) == (5, ["no face was found in it"])
    assert asked == [(250, 250, 3)] * 6


class TwoFaces:
    """Answers a small face in the middle and a large one, or nothing; notes whether it was called twice at a time."""

    def __init__(self, points: np.ndarray) -> None:
        self.points, self.busy, self.overlapped, self.asked = points, False, False, 0

    def __call__(self, image: np.ndarray) -> Faces:
        self.overlapped |= self.busy
        self.busy, self.asked = True, self.asked + 1
        time.sleep(0.005)
        self.busy = False
        if self.asked == 3:
            return Faces.none()
        boxes = np.array([[120, 120, 130, 130], [60, 60, 190, 190]], np.float32)
        points = np.stack([np.full((5, 2), 125), self.points]).astype(np.float32)
        return Faces.sorted(boxes, points, np.array([0.99, 0.9]))


def test_the_command_finds_the_main_face_itself(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    detector, specs = TwoFaces(ARCFACE_112 * 1.1 + 60), []
    monkeypatch.setattr("marginface.commands.align.open_detector", lambda spec: specs.append(spec) or detector)
    command = ["align", str(tmp_path / "images"), str(tmp_path / "faces")]
    cli.main([*command, "--detector=auto"])
    output = capsys.readouterr()
    assert "5 faces in" in output.out
    assert "1 left out" in output.out
    assert "no face was found in it" in output.err
    assert not detector.overlapped
    faces = sorted((tmp_path / "faces").rglob("*.png"))
    for face in faces:
        photograph = tmp_path / "images" / face.relative_to(tmp_path / "faces").with_suffix(".jpg")
        expected = crop_face(cv2.imread(str(photograph)), detector.points.astype(np.float32))
        assert (cv2.imread(str(face)) == expected).all()
    cli.main([*command, "--detector=dlib"])
    assert "1 faces in" in capsys.readouterr().out
    assert detector.asked == 7  # the faces that are there were not looked for again
    assert specs == ["", "dlib"]


def test_the_command_without_a_detector_says_how_to_get_one(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in {
        (): "it has no points; find them with --detector auto",
        ("--detector=magic",): "detector 'magic' is not understood",
    }.items():
        with pytest.raises(SystemExit):
            cli.main(["align", str(tmp_path / "images"), str(tmp_path / "faces"), *options])
        assert message in capsys.readouterr().err


def test_sizes_that_a_template_does_not_have(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="size 128: give 8 or more, and for arcface96 a height that 7 divides"):
        align_faces(open_reader(photographs), tmp_path / "faces", 128, template="arcface96")
    with pytest.raises(InputError, match="vgg is no template; choose arcface, arcface96, openvino"):
        align_faces(open_reader(photographs), tmp_path / "faces", template="vgg")


@pytest.mark.lfw
def test_alignment_of_the_real_set_is_least_squares_and_bilinear(lfw_root: Path) -> None:
    """Each face against the definition in float64, pixel by pixel."""
    reader = open_reader(lfw_root / "lfw_landmark.txt")
    rows, columns = np.mgrid[:112, :112]
    for record in reader.read(range(0, len(reader), 2000)):
        photograph = decode(record)
        assert record.points is not None
        face = crop_face(photograph, record.points)
        back = np.linalg.inv(np.vstack([similarity(record.points, ARCFACE_112), [0, 0, 1]]))[:2]
        x, y = (np.stack([columns, rows, np.ones_like(rows)], -1).reshape(-1, 3) @ back.T).T
        expected = bilinear(photograph.astype(float), x, y).reshape(112, 112, 3)
        assert np.abs(face - expected).max() <= 12  # OpenCV rounds positions to 1/32 of a pixel
        assert np.abs(face - expected).mean() < 0.5


def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values of `image` (H, W, 3) at x, y (n,), black outside: (n, 3)."""
    image = np.pad(image, ((1, 2), (1, 2), (0, 0)))
    x, y = np.clip(x + 1, 0, image.shape[1] - 2), np.clip(y + 1, 0, image.shape[0] - 2)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = (x - left)[:, None], (y - top)[:, None]
    upper = (1 - a) * image[top, left] + a * image[top, left + 1]
    lower = (1 - a) * image[top + 1, left] + a * image[top + 1, left + 1]
    return (1 - b) * upper + b * lower
