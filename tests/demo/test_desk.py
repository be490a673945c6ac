"""What the page can do, without a page."""

import gc
from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface.demo.desk import Desk, far_in_words
from marginface.detection import Faces
from marginface.errors import InputError
from marginface.gallery.people import Gallery
from marginface.gallery.photos import Eye, Photograph
from marginface.gallery.store import Store
from recognition import COLOURS, EYE, MODEL, STRANGER, photograph


@pytest.fixture
def photos() -> dict[str, Photograph]:
    images = {name: photograph((colour, 30, 20)) for name, colour in {**COLOURS, "Stranger": STRANGER}.items()}
    images["nobody"] = np.full((80, 80, 3), 128, np.uint8)
    return {
        name: Photograph(f"{name}.png", cv2.imencode(".png", image[..., ::-1])[1].tobytes())
        for name, image in images.items()
    }


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(Gallery(Store(str(tmp_path / "people.db"), write=True), MODEL), EYE)


def test_enrol_recognise_erase(desk: Desk, photos: dict[str, Photograph]) -> None:
    assert desk.enrol(photos["Ann"], " Ann ") == "Photographs of Ann: 1. People enrolled: 1."
    desk.enrol(photos["Bob"], "Bob")
    again = desk.enrol(photos["Bob"], "Bob")
    assert again == "This photograph of Bob was enrolled already. Photographs of Bob: 1. People enrolled: 2."
    picture, rows = desk.recognise(photos["Ann"], 0.9, 0)
    assert picture.shape == (120, 240, 3)
    assert [row[:3] for row in rows] == [("Ann", "1.000", ["Ann 1.00", f"Bob {-0.31:.2f}"])]
    assert desk.recognise(photos["Stranger"], 0.9, 0)[1][0][0] == "unknown"
    assert float(desk.recognise(photos["Ann"], 0.9, 3)[1][0][3]) < float(rows[0][3])  # less sharp
    assert desk.erase("Ann") == "Photographs of Ann erased: 1. People enrolled: 1."
    assert desk.recognise(photos["Ann"], 0.9, 0)[1][0][0] == "unknown"
    with pytest.raises(InputError, match=r"^Ann is not enrolled; choose a person from the list\.$"):
        desk.erase("Ann")


def test_one_photograph_of_two_people(desk: Desk, photos: dict[str, Photograph]) -> None:
    desk.enrol(photos["Ann"], "Ann")
    told = desk.enrol(photos["Ann"], "Bob")
    assert told.endswith("The same photograph is enrolled as Ann, too; is that right?")


def test_two_photographs(desk: Desk, photos: dict[str, Photograph]) -> None:
    told, faces = desk.compare(photos["Ann"], photos["Ann"], 0.9)
    assert told == "The same person: similarity 1.000, threshold 0.900."
    assert [face.shape for face in faces] == [(112, 112, 3)] * 2
    assert desk.compare(photos["Ann"], photos["Bob"], 0.9)[0].startswith("Different people")


def test_why(desk: Desk, photos: dict[str, Photograph]) -> None:
    assert desk.explain(photos["Ann"], 0.9)[0] == "Nobody is enrolled yet."
    for name in COLOURS:
        desk.enrol(photos[name], name)
    told, pictures = desk.explain(photos["Eve"], 0.9)
    assert told == "Eve: 1.000 is at or above the threshold 0.900."
    assert pictures[1][1].startswith("Eve 1.000")
    assert len(pictures) == 4
    assert desk.explain(photos["Stranger"], 0.9)[0].startswith("No match: the nearest is")


def test_what_cannot_be_used(desk: Desk, photos: dict[str, Photograph]) -> None:
    with pytest.raises(InputError, match=r"^nobody\.png: no face was found"):
        desk.compare(photos["nobody"], photos["Ann"], 0.9)
    with pytest.raises(InputError, match=r"^a\.svg: .*it is not JPEG"):
        desk.recognise(Photograph("a.svg", b"<svg/>"), 0.9, 0)


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "a\u202eb", "a\u2028b", "a\ud800b", "", "x" * 501, "unknown"])
def test_names_that_nobody_has(desk: Desk, photos: dict[str, Photograph], name: str) -> None:
    with pytest.raises(InputError, match="name"):
        desk.enrol(photos["Ann"], name)
    assert desk.names == []


def test_a_photograph_is_forgotten(desk: Desk, photos: dict[str, Photograph]) -> None:
    found = []
    eye = Eye(lambda image: found.append(1) or Faces.none(), MODEL)  # type: ignore[func-returns-value]
    desk = Desk(desk._gallery, eye)
    for threshold in (0.1, 0.2):
        desk.recognise(photos["Ann"], threshold, 0)
    assert len(found) == 1  # another threshold changes no face
    del photos["Ann"]
    gc.collect()
    assert len(desk._last) == 0


def test_false_accepts_in_words() -> None:
    measured = {1e-2: 0.3, 1e-3: 0.5}
    assert far_in_words(0.6, measured).startswith("At most one in 1,000 ")
    assert far_in_words(0.3, measured).startswith("At most one in 100 ")
    assert far_in_words(0.1, measured).startswith("More than one in 100 ")
    assert far_in_words(0.1, {}).startswith("Nobody measured")
