"""Folders of photographs to folders of faces: which are made, which kept, which named as missing."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface.errors import InputError
from marginface.faces.align import align_folder
from marginface.faces.template import crop_face

POINTS = np.array([[100.5, 113.25], [142.0, 112.0], [122.0, 138.0], [103.0, 160.0], [141.0, 157.5]])


def photograph(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (25, 25, 3), dtype=np.uint8)
    return cv2.resize(small, (250, 250), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two people with two photographs each, and their points."""
    lines = []
    for person in ("Ann_Bo", "Zoe"):
        (tmp_path / "photos" / person).mkdir(parents=True)
        for number in (1, 2):
            name = f"{person}/{person}_{number:04d}.png"
            cv2.imwrite(str(tmp_path / "photos" / name), photograph(number))
            lines.append("\t".join([name, *(f"{value:.3f}" for value in POINTS.ravel())]))
    (tmp_path / "points.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(album: Path, **options: object) -> object:
    return align_folder(album / "photos", album / "points.txt", album / "faces", **options)  # type: ignore[arg-type]


def test_every_face_is_the_crop_of_its_points(album: Path) -> None:
    report = run(album)
    assert str(report) == "4 faces aligned"
    for number in (1, 2):
        face = cv2.imread(str(album / "faces" / "Zoe" / f"Zoe_{number:04d}.png"))
        assert (face == crop_face(photograph(number), POINTS)).all()


def test_jpegs_keep_their_colours(album: Path) -> None:
    photo = cv2.GaussianBlur(photograph(1), (0, 0), 4)
    cv2.imwrite(str(album / "photos" / "Zoe" / "Zoe_0003.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 100])
    line = "Zoe/Zoe_0003.jpg " + " ".join(map(str, POINTS.ravel()))
    (album / "points.txt").write_text(line)
    run(album)
    face = cv2.imread(str(album / "faces" / "Zoe" / "Zoe_0003.jpg")).astype(int)
    inside = crop_face(np.full((250, 250, 3), 255, np.uint8), POINTS) == 255
    assert np.abs(face - crop_face(photo, POINTS))[inside].mean() < 1.5


def test_a_stopped_run_goes_on_and_mends_what_a_power_cut_left(album: Path) -> None:
    run(album)
    first, second = (album / "faces" / "Zoe" / f"Zoe_{number:04d}.png" for number in (1, 2))
    before, whole = first.stat().st_mtime_ns, second.read_bytes()
    second.write_bytes(b"")
    report = run(album)
    assert str(report) == "1 faces aligned, 3 were there already"
    assert first.stat().st_mtime_ns == before
    assert second.read_bytes() == whole
    assert not list((album / "faces").rglob(".*"))


def test_another_size_needs_another_folder(album: Path) -> None:
    run(album)
    with pytest.raises(InputError, match="112x112 pixels, not 128x128"):
        run(album, size=128)


def test_only_the_people_of_a_list(album: Path) -> None:
    (album / "names.txt").write_text("Zoe\t2\n")
    run(album, names=album / "names.txt")
    assert [path.name for path in (album / "faces").iterdir()] == ["Zoe"]
    (album / "names.txt").write_text("Zoe\nYann\n")
    with pytest.raises(InputError, match="no folder for 1 of the people listed: Yann"):
        run(album, names=album / "names.txt")


def test_what_is_left_out_is_named(album: Path) -> None:
    cv2.imwrite(str(album / "photos" / "Zoe" / "Zoe_0003.png"), photograph(3))
    (album / "photos" / "Zoe" / "Zoe_0001.png").write_bytes(b"\x89PNG damaged")
    lines = (album / "points.txt").read_text().splitlines()
    lines[1] = "\t".join([lines[1].split("\t")[0], *["7"] * 10])
    (album / "points.txt").write_text("\n".join(lines))
    report = str(run(album))
    assert "2 faces aligned, 1 have no points (Zoe/Zoe_0003.png), 2 left out" in report
    assert "Zoe_0001.png is damaged" in report
    assert "coincide" in report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Zoe/Zoe_0001.png\t1\t2\t3\n", "line 1: expected an image's name and ten numbers"),
        ("Zoe/Zoe_0001.png 1 2 3 4 5 6 7 8 9 nan\n", "line 1: expected"),
        ("a.png 1 2 3 4 5 6 7 8 9 10\na.png 1 2 3 4 5 6 7 8 9 10\n", "line 2: a.png has had its points before"),
        ("other/a.png 1 2 3 4 5 6 7 8 9 10\n", "none of the 4 photographs"),
    ],
)
def test_bad_landmark_lists_are_refused(album: Path, text: str, message: str) -> None:
    (album / "points.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        run(album)
    assert not (album / "faces").exists()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"points.txt cannot be read"):
        align_folder(tmp_path, tmp_path / "points.txt", tmp_path / "faces")
    (tmp_path / "points.txt").write_text("")
    with pytest.raises(InputError, match="photos is no folder"):
        align_folder(tmp_path / "photos", tmp_path / "points.txt", tmp_path / "faces")
