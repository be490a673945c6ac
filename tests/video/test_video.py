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
from marginface.video.tracking import Track, Tracker, is_cut
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
    for name, other in ("Ann", "Bob"), ("Ann", "Bob"), ("Bob", "Ann"), ("Ann", "Bob"), *[("Bob", "Ann")] * 3:
        track.vote(Match(name, 0.9, [(name, 0.9), (other, 0.8)]), 0.7)
        names.append(track.name)
    assert names == ["Ann"] * 5 + ["Bob"] * 2


def test_a_name_is_shown_only_while_the_face_is_like_its_person() -> None:
    track = Track(1, np.zeros(4), RIGHT[0], Match(UNKNOWN, -1.0, []))
    names = []
    for similarity in (0.9, 0.9, 0.6, 0.9):
        track.vote(Match("Ann" if similarity >= 0.7 else UNKNOWN, similarity, [("Ann", similarity)]), 0.7)
        names.append(track.name)
    assert names == ["Ann", "Ann", UNKNOWN, "Ann"]


def test_another_face_in_the_same_place_is_another_track() -> None:
    tracker, box = Tracker(0.5), np.array([[10.0, 10, 50, 50]])
    assert [track.number for track in tracker.detected(box, RIGHT[:1])] == [1]
    assert [track.number for track in tracker.detected(box, RIGHT[1:])] == [2]
    assert [track.number for track in tracker.visible] == [2]
    assert [track.number for track in tracker.detected(box, RIGHT[:1])] == [1]  # back after a moment
    near = np.array([[10.0, 10, 50, 50], [20, 10, 60, 50]])
    tracker = Tracker(0.5)
    tracker.detected(near, RIGHT)
    crossed = tracker.detected(near, RIGHT[::-1])  # each box overlaps both; the faces tell
    assert [track.number for track in crossed] == [2, 1]


def scene(seed: int) -> np.ndarray:
    return cv2.resize(
        np.random.default_rng(seed).integers(0, 256, (12, 20), np.uint8), (400, 240), interpolation=cv2.INTER_CUBIC
    )


def test_a_cut_ends_all_tracks_and_a_pan_none() -> None:
    pan = [np.ascontiguousarray(scene(0)[:, 4 * i : 300 + 4 * i]) for i in range(8)]
    tracker = Tracker()
    tracker.detected(np.array([[100.0, 50, 160, 120]]), RIGHT[:1], pan[0])
    for before, now in pairwise(pan):
        assert not tracker.moved(before, now)
        assert not is_cut(now, np.clip(now.astype(int) + 40, 0, 255).astype(np.uint8))  # a flash
    assert len(tracker.visible) == 1
    assert tracker.moved(pan[-1], np.ascontiguousarray(scene(1)[:, :300]))
    assert tracker.tracks == []


def test_a_box_that_looks_otherwise_is_hidden_until_its_face_is_found() -> None:
    tracker, box = Tracker(), np.array([[30.0, 30, 80, 80]])
    frames = [scene(0)] * 3 + [scene(0).copy()]
    frames[3][20:90, 20:90] = scene(2)[20:90, 20:90]  # somebody stands in front
    tracker.detected(box, RIGHT[:1], frames[0])
    assert not tracker.moved(frames[0], frames[1])
    assert len(tracker.visible) == 1
    assert tracker.moved(frames[2], frames[3])
    assert tracker.visible == []
    tracker.detected(np.empty((0, 4)), np.empty((0, 3)), frames[3])
    assert tracker.visible == []
    assert [track.number for track in tracker.detected(box, RIGHT[:1], frames[0])] == [1]
    assert len(tracker.visible) == 1


def test_after_a_cut_nobody_keeps_the_name(gallery: Gallery, tmp_path: Path) -> None:
    """Ann, then a stranger and Bob in the same place, between two detections."""
    path = tmp_path / "cuts.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (400, 120))
    shots = [(COLOURS["Ann"], 150), (STRANGER, 150), (COLOURS["Bob"], 150)]
    for i in range(21):
        writer.write(np.ascontiguousarray(photograph((*shots[i // 7], 30), shape=(120, 400))[..., ::-1]))
    writer.release()
    found = dict(identify_video(str(path), gallery, EYE, 0.9, every=6))
    wanted = ["Ann"] * 7 + [UNKNOWN] * 7 + ["Bob"] * 7
    for number, people in found.items():
        names = {person.name for person in people}
        assert names <= {wanted[number], UNKNOWN}, number


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
