"""What the page can do, without a page."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface.demo.desk import Desk, far_in_words
from marginface.errors import InputError
from marginface.gallery.people import Gallery
from marginface.gallery.store import Store
from recognition import COLOURS, EYE, MODEL, STRANGER, photograph


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, colour in {**COLOURS, "Stranger": STRANGER}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), photograph((colour, 30, 20))[..., ::-1])
    cv2.imwrite(str(tmp_path / "nobody.png"), np.full((80, 80, 3), 128, np.uint8))
    return tmp_path


@pytest.fixture
def desk(photos: Path) -> Desk:
    return Desk(Gallery(Store(str(photos / "people.db"), write=True), MODEL), EYE)


def test_enrol_recognise_erase(desk: Desk, photos: Path) -> None:
    assert desk.enrol(str(photos / "Ann.png"), " Ann ") == "Photographs of Ann: 1. People enrolled: 1."
    desk.enrol(str(photos / "Bob.png"), "Bob")
    again = desk.enrol(str(photos / "Bob.png"), "Bob")
    assert again == "This photograph of Bob was enrolled already. Photographs of Bob: 1. People enrolled: 2."
    picture, rows = desk.recognise(str(photos / "Ann.png"), 0.9, 0)
    assert picture.shape == (120, 240, 3)
    assert [row[0] for row in rows] == ["Ann"]
    assert desk.recognise(str(photos / "Stranger.png"), 0.9, 0)[1][0][0] == "unknown"
    assert float(desk.recognise(str(photos / "Ann.png"), 0.9, 3)[1][0][3]) < float(rows[0][3])  # less sharp
    assert desk.erase("Ann") == "Photographs of Ann erased: 1. People enrolled: 1."
    assert desk.recognise(str(photos / "Ann.png"), 0.9, 0)[1][0][0] == "unknown"


def test_one_photograph_of_two_people(desk: Desk, photos: Path) -> None:
    desk.enrol(str(photos / "Ann.png"), "Ann")
    told = desk.enrol(str(photos / "Ann.png"), "Bob")
    assert told.endswith("The same photograph is enrolled as Ann, too; is that right?")


def test_two_photographs(desk: Desk, photos: Path) -> None:
    told, faces = desk.compare(str(photos / "Ann.png"), str(photos / "Ann.png"), 0.9)
    assert told == "The same person: similarity 1.000, threshold 0.900."
    assert [face.shape for face in faces] == [(112, 112, 3)] * 2
    assert desk.compare(str(photos / "Ann.png"), str(photos / "Bob.png"), 0.9)[0].startswith("Different people")


def test_why(desk: Desk, photos: Path) -> None:
    assert desk.explain(str(photos / "Ann.png"), 0.9)[0] == "Nobody is enrolled yet."
    for name in COLOURS:
        desk.enrol(str(photos / f"{name}.png"), name)
    told, pictures = desk.explain(str(photos / "Eve.png"), 0.9)
    assert told == "Eve: 1.000 is at or above the threshold 0.900."
    assert pictures[1][1].startswith("Eve 1.000")
    assert len(pictures) == 4
    assert desk.explain(str(photos / "Stranger.png"), 0.9)[0].startswith("No match: the nearest is")


def test_what_cannot_be_used(desk: Desk, photos: Path) -> None:
    with pytest.raises(InputError, match="no face was found in the photograph"):
        desk.compare(str(photos / "nobody.png"), str(photos / "Ann.png"), 0.9)
    (photos / "a.svg").write_text("<svg/>")
    with pytest.raises(InputError, match="it is not JPEG"):
        desk.recognise(str(photos / "a.svg"), 0.9, 0)


def test_false_accepts_in_words() -> None:
    measured = {1e-2: 0.3, 1e-3: 0.5}
    assert far_in_words(0.6, measured).startswith("At most one in 1,000 ")
    assert far_in_words(0.3, measured).startswith("At most one in 100 ")
    assert far_in_words(0.1, measured).startswith("More than one in 100 ")
    assert far_in_words(0.1, {}).startswith("Nobody measured")
