"""What the web page can do, without the page: recognise, enrol, erase, compare, explain. Called by `page`.

Photographs come encoded, because our own decoder is the one that turns them as EXIF says and refuses bombs.
"""

import threading
import weakref
from collections.abc import Mapping

import cv2
import numpy as np

from marginface.demo.photographs import UNSEEN
from marginface.detection import most_central
from marginface.errors import InputError
from marginface.gallery.drawing import draw_faces
from marginface.gallery.people import UNKNOWN, Gallery
from marginface.gallery.photos import Eye, Photograph, Seen, blur_of, read_photo
from marginface.loading.decode import decode
from marginface.readers.base import Record

NEAREST, REASONS = 3, 4  # people shown on the page that explains, and pictures of each


class Desk:
    """One at a time may use detector, network and gallery: the page's server has a thread a visitor."""

    def __init__(self, gallery: Gallery, eye: Eye) -> None:
        self._gallery, self._eye, self._turn = gallery, eye, threading.Lock()
        self._last: weakref.WeakKeyDictionary[Photograph, tuple[float, np.ndarray, Seen]] = weakref.WeakKeyDictionary()

    @property
    def names(self) -> list[str]:
        return self._gallery.names

    def recognise(
        self, photograph: Photograph, threshold: float, blur: float
    ) -> tuple[np.ndarray, list[tuple[str, str, list[str], str]]]:
        """The photograph with boxes and names, RGB uint8, and a row per face: name, similarity, nearest, sharpness.

        blur: standard deviation in pixels of a Gaussian over the photograph first, to see what it takes to fail.
        """
        with self._turn:
            image, seen = self._seen(photograph, blur)
            matches = self._gallery.identify(seen.vectors, threshold, NEAREST)
            rows = [
                (
                    m.name,
                    f"{m.similarity:.3f}" if m.nearest else "nobody is enrolled",
                    [f"{name} {similarity:.2f}" for name, similarity in m.nearest],
                    f"{blur_of(crop):.0f}",
                )
                for m, crop in zip(matches, seen.crops, strict=True)
            ]
            labels = [f"{m.name} {m.similarity:.2f}" if m.nearest else m.name for m in matches]
            return draw_faces(image, seen.found.boxes, labels), rows

    def _seen(self, photograph: Photograph, blur: float) -> tuple[np.ndarray, Seen]:
        """Image and faces; those of the last photograph are kept, since another threshold changes no face."""
        last = self._last.get(photograph)
        if last is None or last[0] != blur:
            self._last.clear()
            image = blurred(read_photo(photograph), blur)
            last = self._last[photograph] = blur, image, self._eye.see(image)
        return last[1:]

    def enrol(self, photograph: Photograph, name: str) -> str:
        """Adds the main face of a photograph; what to tell the visitor."""
        with self._turn:
            name = name.strip()
            if UNSEEN.search(name):
                raise InputError("A name is one line of text; leave out control characters.")
            enrolment = self._gallery.add_photo(name, photograph, self._eye)
            counts = f"Photographs of {name}: {self._gallery.count()[name]}. People enrolled: {len(self.names)}."
            if enrolment.outcome == "known":
                return f"This photograph of {name} was enrolled already. {counts}"
            if enrolment.others:
                return f"{counts} The same photograph is enrolled as {', '.join(enrolment.others)}, too; is that right?"
            return counts

    def erase(self, name: str) -> str:
        """Removes a person with every trace; what to tell the visitor."""
        with self._turn:
            if name not in self.names:
                raise InputError(f"{name} is not enrolled; choose a person from the list.")
            count = self._gallery.erase([name])
            return f"Photographs of {name} erased: {count}. People enrolled: {len(self.names)}."

    def compare(self, first: Photograph, second: Photograph, threshold: float) -> tuple[str, list[np.ndarray]]:
        """Whether two photographs show one person, and both faces as the network saw them."""
        with self._turn:
            a, b = (self._main(photograph) for photograph in (first, second))
            similarity = float(a.vectors[0] @ b.vectors[0])
            answer = "The same person" if similarity >= threshold else "Different people"
            return f"{answer}: similarity {similarity:.3f}, threshold {threshold:.3f}.", [a.crops[0], b.crops[0]]

    def explain(self, photograph: Photograph, threshold: float) -> tuple[str, list[tuple[np.ndarray, str]]]:
        """Why the main face has its name, or none: the enrolled pictures that are nearest to it, with similarities."""
        with self._turn:
            seen = self._main(photograph)
            match = self._gallery.identify(seen.vectors, threshold, NEAREST)[0]
            if not match.nearest:
                return "Nobody is enrolled yet.", [(seen.crops[0], "this face")]
            pictures = [(seen.crops[0], "this face")]
            for name, pooled in match.nearest:
                for similarity, _, data in self._gallery.explain(seen.vectors[0], name)[:REASONS]:
                    pictures.append((_picture(data), f"{name} {similarity:.3f}, pooled {pooled:.3f}"))
            best, name = match.similarity, match.nearest[0][0]
            if match.name == UNKNOWN:
                return (
                    f"No match: the nearest is {name} with {best:.3f}, below the threshold {threshold:.3f}.",
                    pictures,
                )
            return f"{name}: {best:.3f} is at or above the threshold {threshold:.3f}.", pictures

    def _main(self, photograph: Photograph) -> Seen:
        image = read_photo(photograph)
        found = self._eye.detector(image)
        if not len(found):
            raise InputError(f"{photograph.name}: no face was found; try one that shows it larger and from the front.")
        return self._eye.look(image, found.at(np.array([most_central(found, *image.shape[:2])])))


def blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    """RGB uint8; deviation 0 changes nothing."""
    return cv2.GaussianBlur(image, (0, 0), deviation) if deviation > 0 else image


def far_in_words(threshold: float, thresholds: Mapping[float, float]) -> str:
    """What is known of the false accepts at a threshold, from those that were measured."""
    enough = [far for far, needed in thresholds.items() if threshold >= needed]
    if enough:
        return f"At most one in {1 / min(enough):,.0f} comparisons of different people is accepted (measured)."
    if thresholds:
        return f"More than one in {1 / max(thresholds):,.0f} comparisons of different people is accepted."
    return "Nobody measured false accepts of this model; `marginface threshold` does."


def _picture(data: bytes) -> np.ndarray:
    """Of a face in the gallery, which a stranger may have made; black where there is none."""
    try:
        return decode(Record(data, 0, "the gallery"))
    except InputError:
        return np.zeros((96, 96, 3), np.uint8)
