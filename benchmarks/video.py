"""Names in a film made of photographs of real people: how often somebody is called by another's name.

The film has cuts between people in the same place, entrances in front of somebody, crossings, and somebody who is
exchanged without a cut; half of its people are enrolled in a gallery, half are strangers. Run
`python benchmarks/video.py LFW_FOLDER` (under 3 minutes on a processor); the folder holds images/ and val_names.txt.
The film is written into a temporary folder; prints the row for benchmarks/video.md.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from marginface.detection import open_detector
from marginface.gallery.models import open_model
from marginface.gallery.people import UNKNOWN, Gallery, enrol
from marginface.gallery.photos import Eye
from marginface.gallery.store import Store
from marginface.video.annotate import identify_video

ENROLLED, WIDTH, HEIGHT, SIDE = 3, 480, 270, 190
RATE, EVERY, FAR = 25, 5, 1e-3
Face = tuple[str, np.ndarray, float, float]
"""Name, picture uint8 (SIDE, SIDE, 3), left and top; what comes later in a frame lies in front."""


def draw(folder: Path, people: int) -> tuple[dict[str, list[Path]], dict[str, Path]]:
    """Photographs to enrol of `people` people, and one to film of these and of as many strangers; seed 0."""
    names = [line.split("\t")[0] for line in (folder / "val_names.txt").read_text().splitlines()]
    photos = {name: sorted((folder / "images" / name).glob("*.jpg")) for name in names}
    random = np.random.default_rng(0)
    rich = [name for name in names if len(photos[name]) > ENROLLED]
    known = random.choice(rich, people, replace=False).tolist()
    others = random.choice([name for name in names if name not in rich], people, replace=False).tolist()
    filmed = {name: photos[name][ENROLLED] for name in known} | {name: photos[name][0] for name in others}
    return {name: photos[name][:ENROLLED] for name in known}, filmed


def shots(people: dict[str, np.ndarray]) -> Iterator[Iterator[list[Face]]]:
    """What the film shows, frame by frame: known people and strangers by turns."""
    names = list(people)
    half = len(names) // 2
    order = [name for pair in zip(names[:half], names[half:], strict=True) for name in pair]
    middle, top = (WIDTH - SIDE) / 2, (HEIGHT - SIDE) / 2
    for turn, name in enumerate(order):  # cuts, at all phases of the detections
        yield ([(name, people[name], middle + i / 3, top)] for i in range(23 + turn % EVERY))
    for a, b in itertools.pairwise(order[:3]):
        yield (  # one stays, the other comes in and stops in front
            [(a, people[a], 140, top), (b, people[b], WIDTH - min(8 * i, WIDTH - 175), top + 10)] for i in range(60)
        )
        yield ([(a, people[a], 6 * i - 40, top), (b, people[b], WIDTH - 6 * i - 150, top)] for i in range(56))
        yield ([(b if i >= 27 else a, people[b if i >= 27 else a], middle, top)] for i in range(50))


def compose(faces: list[Face], background: np.ndarray) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """A frame, and who is where in it: the box of the face's middle, of all not half covered."""
    frame, places = background.copy(), []
    for name, picture, left, top in faces:
        x, y = round(left), round(top)
        low, high = max(x, 0), min(x + SIDE, WIDTH)
        if high > low:
            frame[y : y + SIDE, low:high] = picture[:, low - x : high - x]
            places = [(other, box) for other, box in places if not x - 30 < (box[0] + box[2]) / 2 < x + SIDE + 30]
            places.append((name, np.array([x + SIDE * 0.25, y + SIDE * 0.2, x + SIDE * 0.75, y + SIDE * 0.8])))
    return frame, places


def film(path: Path, people: dict[str, np.ndarray]) -> list[list[tuple[str, np.ndarray]]]:
    """Writes the film; who is where in each frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    random, truth = np.random.default_rng(1), []
    small = random.integers(60, 200, (9, 16, 3), dtype=np.uint8)
    background = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for shot in shots(people):
        for faces in shot:
            frame, places = compose(faces, background)
            writer.write(frame)
            truth.append(places)
    writer.release()
    return truth


def judge(shown: list[tuple[str, np.ndarray]], places: list[tuple[str, np.ndarray]]) -> bool:
    """Whether a name is shown on somebody, or at a place, whose it is not."""
    for name, box in shown:
        middle = (box[:2] + box[2:]) / 2
        around = [other for other, place in places if (place[:2] < middle).all() and (middle < place[2:]).all()]
        if name != UNKNOWN and name not in around:
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="dlib")
    parser.add_argument("--people", type=int, default=3)
    options = parser.parse_args()
    known, filmed = draw(options.folder, options.people)
    side = (250 - SIDE) // 2
    pictures = {name: cv2.imread(str(path))[side:-side, side:-side] for name, path in filmed.items()}
    eye = Eye(open_detector(""), open_model(options.model))
    threshold = eye.model.threshold(FAR)
    with tempfile.TemporaryDirectory() as temporary:
        truth = film(Path(temporary) / "film.avi", pictures)
        gallery = Gallery(Store(f"{temporary}/people.db", write=True), eye.model)
        list(enrol(gallery, [(name, path) for name, paths in known.items() for path in paths], eye))
        begin = time.perf_counter()
        found = dict(identify_video(f"{temporary}/film.avi", gallery, eye, threshold, every=EVERY))
        seconds = time.perf_counter() - begin
        gallery.close()
    shown = {n: [(person.name, np.array(person.box)) for person in people] for n, people in found.items()}
    wrong = sum(judge(shown[number], places) for number, places in enumerate(truth))
    faces = [(number, name) for number, places in enumerate(truth) for name, _ in places if name in known]
    right = sum(name in [other for other, _ in shown[number]] for number, name in faces)
    row = (
        f"| {len(truth)} | {wrong} ({wrong / len(truth):.1%}) | {right / len(faces):.1%} of {len(faces)} "
        f"| {1000 * seconds / len(truth):.0f} ms |"
    )
    print(row)


if __name__ == "__main__":
    main()
