"""Faces followed through a short film, names that stay, an annotated film that can be read again."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface.errors import InputError
from marginface.gallery.people import UNKNOWN, Gallery, Match
from marginface.gallery.store import Store
from marginface.video.annotate import Person, identify_video
from marginface.video.tracking import Track, Tracker
from recognition import COLOURS, EYE, MODEL, STRANGER, photograph, save

RIGHT = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


def test_a_moving_face_is_followed_between_detections() -> None:
    random = np.random.default_rng(0)
    scene = cv2.resize(random.integers(0, 256, (24, 40), np.uint8), (400, 240), interpolation=cv2.INTER_CUBIC)
    frames = [np.ascontiguousarray(scene[20:200, 60 - 2 * i : 360 - 2 * i]) for i in range(8)]
    tracker = Tracker()
    tracker.detected(np.array([[100.0, 50, 160, 120]]), RIGHT[:1])
    for before, now in pairwise(frames):
        tracker.moved(before, now)
    assert np.abs(tracker.tracks[0].box - [114, 50, 174, 120]).max() < 1.5


def test_faces_keep_their_numbers() -> None:
    tracker = Tracker()
    a, b = np.array([10.0, 10, 50, 50]), np.array([100.0, 10, 140, 50])
    assert [track.number for track in tracker.detected(np.stack([a, b]), RIGHT)] == [1, 2]
    assert [track.number for track in tracker.detected(np.stack([b + 4, a + 4]), RIGHT[::-1])] == [2, 1]
    for _ in range(3):  # one turns away for a while
        tracker.detected(a[None], RIGHT[:1])
        assert [track.number for track in tracker.visible] == [1]
    assert [track.number for track in tracker.detected(np.stack([a, b]), RIGHT)] == [1, 2]
    for _ in range(4):
        tracker.detected(a[None], RIGHT[:1])
    assert [track.number for track in tracker.detected(np.stack([a, b]), RIGHT)] == [1, 3]
    assert tracker.detected(np.empty((0, 4)), np.empty((0, 3))) == []


def test_one_bad_frame_changes_no_name() -> None:
    track = Track(1, np.zeros(4), RIGHT[0], Match(UNKNOWN, -1.0, []))
    names = []
    for name in ("Ann", "Ann", "Bob", "Ann", "Bob", "Bob", "Bob"):
        track.vote(Match(name, 0.9, [(name, 0.9)]))
        names.append(track.name)
    assert names == ["Ann"] * 5 + ["Bob"] * 2


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    gallery = Gallery(Store(str(tmp_path / "people.db"), write=True), MODEL)
    for name, colour in COLOURS.items():
        gallery.add_photo(name, save(tmp_path / f"{name}.png", photograph((colour, 20, 20))), EYE)
    return gallery


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Thirty frames: Ann walks to the right, a stranger stays, Bob comes in at frame 15."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (400, 120))
    for i in range(30):
        people = [(COLOURS["Ann"], 10 + i, 30), (STRANGER, 300, 30)]
        people += [(COLOURS["Bob"], 160, 30)] if i >= 15 else []
        writer.write(np.ascontiguousarray(photograph(*people, shape=(120, 400))[..., ::-1]))
    writer.release()
    return path


@pytest.mark.parametrize("save", ["", "out.mp4", "out.avi"])
def test_a_film(film: Path, gallery: Gallery, tmp_path: Path, save: str) -> None:
    target = tmp_path / "made" / save if save else None
    found: dict[int, list[Person]] = dict(
        identify_video(str(film), gallery, EYE, 0.9, every=5, save=str(target) if target else "")
    )
    assert list(found) == list(range(30))
    for number, people in found.items():
        expected = ["Ann", UNKNOWN] + (["Bob"] if number >= 15 else [])
        assert sorted(person.name for person in people) == sorted(expected), number
        ann = next(person for person in people if person.name == "Ann")
        assert abs(ann.box[0] - (10 + number)) < 6
        assert {person.name: person.track for person in people}["Ann"] == ann.track
    assert len({person.track for people in found.values() for person in people}) == 3
    if target:
        video = cv2.VideoCapture(str(target))
        assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 30
        there, frame = video.read()
        assert there
        assert frame.shape == (120, 400, 3)
        assert [path.name for path in target.parent.iterdir()] == [save]


def test_only_so_many_frames(film: Path, gallery: Gallery) -> None:
    assert len(list(identify_video(str(film), gallery, EYE, 0.9, frames=4))) == 4


def test_what_is_no_film(tmp_path: Path, gallery: Gallery, film: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(InputError, match=r"a\.mp4: the video cannot be opened"):
        list(identify_video(str(tmp_path / "a.mp4"), gallery, EYE, 0.9))
    with pytest.raises(InputError, match=r"camera 97 cannot be opened"):
        list(identify_video(97, gallery, EYE, 0.9))
    with pytest.raises(InputError, match=r"out\.mkv is no video to write"):
        list(identify_video(str(film), gallery, EYE, 0.9, save=str(tmp_path / "out.mkv")))
    with pytest.raises(InputError, match="--every is 0"):
        list(identify_video(str(film), gallery, EYE, 0.9, every=0))
