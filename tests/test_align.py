"""`marginface align`: every photograph of a list, restartable, and honest about what it leaves out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface import cli
from marginface.align import align_faces, read_names
from marginface.errors import InputError
from marginface.faces.template import ARCFACE_112, crop_face
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
    assert sorted(path.name for path in (tmp_path / "faces").iterdir()) == ["Ann_A", "Eve_E"]
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
