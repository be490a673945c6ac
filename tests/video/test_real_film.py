"""A film made of photographs of real people, through the command: names that stay, and a film that can be seen."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface import cli

PEOPLE, FRAMES = 4, 30


@pytest.fixture
def people(lfw_root: Path) -> list[tuple[str, list[Path]]]:
    names = [line.split("\t")[0] for line in (lfw_root / "val_names.txt").read_text().splitlines()]
    everyone = ((name, sorted((lfw_root / "images" / name).glob("*.jpg"))) for name in names)
    return [(name, photos) for name, photos in everyone if len(photos) >= 5][:PEOPLE]


def moved(photo: np.ndarray, frame: int) -> np.ndarray:
    """As a camera in a hand sees it: a slow pan, a little nearer."""
    matrix = cv2.getRotationMatrix2D((125, 125), 0, 1 + frame / 150)
    matrix[:, 2] += [frame / 3, 4 * np.sin(frame / 5)]
    return cv2.warpAffine(photo, matrix, (250, 250), borderMode=cv2.BORDER_REPLICATE)


@pytest.fixture
def film(people: list[tuple[str, list[Path]]], tmp_path: Path) -> Path:
    """Two people side by side, then two others."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (500, 250))
    for pair in (people[:2], people[2:]):
        pictures = [cv2.imread(str(photos[3])) for _, photos in pair]
        for frame in range(FRAMES):
            writer.write(np.hstack([moved(picture, frame) for picture in pictures]))
    writer.release()
    return path


@pytest.mark.lfw
@pytest.mark.slow
def test_names_stay(
    people: list[tuple[str, list[Path]]], film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"--gallery={tmp_path / 'people.db'}"
    for name, photos in people:
        cli.main(["gallery", "add", "--name", name, *map(str, photos[:3]), where])
    capsys.readouterr()
    cli.main(["identify", str(film), where, "--json", "--threshold=0.91", "--save", str(tmp_path / "named.mp4")])
    lines = [json.loads(line)["faces"] for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 * FRAMES
    right = 0
    for number, faces in enumerate(lines):
        there = [name for name, _ in people[: PEOPLE // 2]] if number < FRAMES else [name for name, _ in people[2:]]
        for side, name in enumerate(there):
            here = [face for face in faces if side * 250 <= (face["box"][0] + face["box"][2]) / 2 < side * 250 + 250]
            right += any(face["name"] == name for face in here)
    assert right >= 0.9 * 4 * FRAMES
    called: dict[int, set[str]] = {}
    for face in (face for faces in lines for face in faces):
        called.setdefault(face["track"], set()).add(face["name"])
    assert max(len(names - {"unknown"}) for names in called.values()) == 1, called  # no track changes its name
    made = cv2.VideoCapture(str(tmp_path / "named.mp4"))
    assert int(made.get(cv2.CAP_PROP_FRAME_COUNT)) == 2 * FRAMES
    there, frame = made.read()
    assert there
    assert frame.shape == (250, 500, 3)
