"""A process that enrols and erases people until it is killed, and says what it began and what was done."""

import hashlib
from multiprocessing.connection import Connection

import numpy as np

from marginface.gallery.people import Gallery
from marginface.gallery.store import Face, Store
from recognition import MODEL


def write_until_killed(address: str, seed: int, told: Connection) -> None:
    """Sends ("opened",), then for each step ("add" or "erase", name, photographs) before it and ("done",) after it."""
    random = np.random.default_rng(seed)
    gallery = Gallery(Store(address, write=True), MODEL)
    told.send(("opened",))
    while True:
        if len(gallery.names) > 3 and random.random() < 0.3:
            name = str(random.choice(gallery.names))
            told.send(("erase", name, [face.photo for face in gallery.of(name)]))
            gallery.erase([name])
        else:
            name = f"person-{random.bytes(6).hex()}"
            photos = [hashlib.sha256(random.bytes(8)).hexdigest() for _ in range(random.integers(1, 40))]
            told.send(("add", name, photos))
            gallery.add([Face(name, "a.jpg", b"x" * 300, 1.0, random.random(3, np.float32), photo) for photo in photos])
        told.send(("done",))
