"""A video or a camera -> who is in each frame, and an annotated video. Called by `marginface identify`."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.filenames import as_text, utf8_name
from marginface.files import check_room, create_file
from marginface.gallery.drawing import draw_faces
from marginface.gallery.people import Gallery
from marginface.gallery.photos import Eye
from marginface.loading.decode import MAX_PIXELS
from marginface.untrusted import open_file
from marginface.video.tracking import Track, Tracker

VIDEOS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".wmv",
    ".flv",
    ".3gp",
    ".ogv",
)
"""What a video's name ends in; all other files are taken for photographs."""
CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
FFMPEG = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
ONLY = {
    "format_whitelist": "mov,mp4,3gp,m4v,avi,matroska,webm,mpeg,mpegvideo,mpegts,asf,flv,ogg",
    "protocol_whitelist": "file",
}


@dataclass(frozen=True)
class Person:
    """Someone in a frame. track: the same number as long as the face is followed. box: left, top, right, bottom."""

    track: int
    name: str
    similarity: float
    box: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "similarity": self.similarity, "track": self.track, "box": list(self.box)}


def identify_video(
    source: str | int,
    gallery: Gallery,
    eye: Eye,
    threshold: float,
    *,
    every: int = 5,
    frames: int = 0,
    save: str = "",
    overwrite: bool = False,
) -> Iterator[tuple[int, list[Person]]]:
    """Yields (number, people) of every frame of a video file, or of a camera by its number.

    Faces are looked for in every `every`-th frame, after a cut and where a followed face looks otherwise, and followed
    in between. frames: stop after so many; 0 never.
    save: .mp4 or .avi to write the annotated video to; it is whole or absent, and replaces a file that exists only with
    `overwrite`. Raises InputError where the source cannot be opened or the video cannot be written.
    """
    if every < 1:
        raise InputError(f"--every is {every}; give 1 or more")
    with ExitStack() as held:
        video = open_video(source)
        held.callback(video.release)
        writer = None
        if save:
            rate = video.get(cv2.CAP_PROP_FPS) or 25.0
            writer = held.enter_context(_writing(save, rate, overwrite, str(source)))
        yield from _frames(video, _Namer(gallery, eye, threshold, every), frames, writer)


def open_video(source: str | int) -> cv2.VideoCapture:
    """A video file, or a camera by its number. Raises InputError for anything else.

    FFmpeg would also follow playlists, such as of HLS and its own concat, to other files of this machine, whatever
    the file is called: only formats that hold their frames themselves are opened.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: what is wrong is said below, in one sentence
    given = [part for part in os.environ.get(FFMPEG, "").split("|") if part and part.partition(";")[0] not in ONLY]
    os.environ[FFMPEG] = "|".join([*given, *(f"{key};{value}" for key, value in ONLY.items())])
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if isinstance(source, str) and Path(source).exists():
        open_file(source).close()  # a FIFO would be waited for
    with ExitStack() as held:  # OpenCV crashes on a name that is not UTF-8
        video = cv2.VideoCapture(source if isinstance(source, int) else held.enter_context(utf8_name(source)))
    if not video.isOpened():
        what = f"camera {source}" if isinstance(source, int) else f"{source}: the video"
        raise InputError(f"{what} cannot be opened; give a photograph, a folder, a video, or the number of a camera")
    width, height = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        raise InputError(f"{source} claims frames of {width}×{height} pixels; give a video of at most {MAX_PIXELS:,}")
    return video


def _frames(
    video: cv2.VideoCapture, namer: "_Namer", frames: int, writer: "_Writer | None"
) -> Iterator[tuple[int, list[Person]]]:
    number = 0
    while not frames or number < frames:
        there, picture = video.read()
        if not there:
            if not number:
                raise InputError("the video holds no frame that can be read; it may be damaged or no video")
            return
        image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        people = [_person(track) for track in namer.frame(number, image)]
        if writer:
            labels = [f"{person.name} {person.similarity:.2f}" for person in people]
            boxes = np.array([person.box for person in people]).reshape(-1, 4)
            writer.write(draw_faces(image, boxes, labels))
        yield number, people
        number += 1


class _Namer:
    """Tracks and names of one video."""

    def __init__(self, gallery: Gallery, eye: Eye, threshold: float, every: int) -> None:
        self._gallery, self._eye, self._threshold, self._every = gallery, eye, threshold, every
        self._tracker = Tracker(threshold)
        self._before: np.ndarray = np.empty((0, 0), np.uint8)

    def frame(self, number: int, image: np.ndarray) -> list[Track]:
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        changed = self._before.shape == grey.shape and self._tracker.moved(self._before, grey)
        self._before = grey
        if changed or number % self._every == 0:
            seen = self._eye.see(image)
            tracks = self._tracker.detected(seen.found.boxes.astype(np.float64), seen.vectors, grey)
            vectors = np.array([track.vector for track in tracks], np.float32).reshape(seen.vectors.shape)
            for track, match in zip(tracks, self._gallery.identify(vectors, self._threshold), strict=True):
                track.vote(match, self._threshold)
        return self._tracker.visible


def _person(track: Track) -> Person:
    similarity = dict(track.match.nearest).get(track.name, track.match.similarity)
    left, top, right, bottom = (round(float(side), 1) for side in track.box)
    return Person(track.number, track.name, round(similarity, 4), (left, top, right, bottom))


@contextmanager
def _writing(path: str, rate: float, overwrite: bool, source: str) -> Iterator["_Writer"]:
    """Frames to a new video; rate: frames per second."""
    suffix = Path(path).suffix
    if suffix not in CODECS:
        raise InputError(f"{path} is no video to write; give a name that ends in .mp4 or .avi")
    with create_file(path, overwrite, [source], suffix) as temporary:
        writer = _Writer(path, temporary, rate)
        yield writer
        writer.finish()


class _Writer:
    """Frames to `temporary`, which becomes `path`; the first one decides on the size."""

    def __init__(self, path: str, temporary: Path, rate: float) -> None:
        self._path, self._temporary, self._rate, self._frames = path, temporary, rate, 0
        self._video: cv2.VideoWriter | None = None

    def write(self, image: np.ndarray) -> None:
        if self._video is None:
            if as_text(str(self._temporary)) != str(self._temporary):
                raise InputError(f"{self._path} is not a name in UTF-8, which OpenCV needs; give another")
            size = image.shape[1], image.shape[0]
            codec = cv2.VideoWriter.fourcc(*CODECS[self._temporary.suffix])
            self._video = cv2.VideoWriter(str(self._temporary), codec, self._rate, size)
            if not self._video.isOpened():
                raise InputError(f"{self._path} cannot be written: OpenCV has no encoder for it; try .avi")
        self._video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._frames += 1

    def finish(self) -> None:
        """Raise OSError where the disk is full, which OpenCV does not tell, and InputError where frames are missing."""
        if self._video is not None:
            self._video.release()
        check_room(self._temporary)
        with utf8_name(self._temporary) as name:
            written = cv2.VideoCapture(name)
            count = written.get(cv2.CAP_PROP_FRAME_COUNT) if written.isOpened() else 0
            written.release()
        if count < self._frames:
            raise InputError(f"{self._path} could not be written whole: make room on the disk, or try .avi")
