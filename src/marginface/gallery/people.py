"""The gallery: people by name, several photographs each, one pooled vector to search. Called by commands and pages."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marginface.detection import most_central
from marginface.errors import InputError
from marginface.files import replace_folder
from marginface.gallery import snapshot
from marginface.gallery.models import FaceModel
from marginface.gallery.photos import Eye, read_photo, small_picture
from marginface.gallery.search import Matrix
from marginface.gallery.store import Face, Store

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Match:
    """Who a face is. name: UNKNOWN below the threshold. nearest: the most similar people, best first, with cosines."""

    name: str
    similarity: float
    nearest: list[tuple[str, float]]


class Gallery:
    """The store is the truth; a copy of its vectors in memory answers searches."""

    def __init__(self, store: Store, model: FaceModel) -> None:
        """Raises InputError when the store's vectors are those of another model."""
        self.store, self.model = store, model
        self._faces: list[Face] = []
        if store.exists:
            self._check(store.model())
            self._faces = snapshot.load_faces(store)
        self._names: list[str] | None = None  # made when somebody asks
        self._matrix = Matrix(np.empty((0, model.network.length), np.float32))

    def _check(self, stored: dict[str, Any]) -> None:
        if stored.get("fingerprint") != self.model.fingerprint:
            raise InputError(
                f"{self.store.address} holds vectors of the model {stored.get('name')} ({stored.get('fingerprint')}), "
                f"not of {self.model.name} ({self.model.fingerprint}): give that --model, or enrol into another gallery"
            )

    @property
    def names(self) -> list[str]:
        """Everyone who is enrolled, sorted."""
        return self._pooled()[0]

    def _pooled(self) -> tuple[list[str], Matrix]:
        """One vector a person: the weighted mean of his or hers; a product with it is the mean of the cosines.

        Normalised again, it would raise all similarities, those of strangers too, over what thresholds hold for.
        """
        if self._names is not None:
            return self._names, self._matrix
        names = sorted({face.name for face in self._faces})
        index = {name: row for row, name in enumerate(names)}
        pooled = np.zeros((len(names), self.model.network.length), np.float32)
        weights = np.zeros((len(names), 1), np.float32)
        for face in self._faces:
            pooled[index[face.name]] += face.vector * np.float32(face.weight)
            weights[index[face.name]] += np.float32(face.weight)
        pooled /= np.maximum(weights, 1e-12)
        self._matrix = Matrix(pooled)
        self._names = names
        return names, self._matrix

    def add(self, faces: Sequence[Face]) -> None:
        """Enrols faces whose vectors are of this gallery's model; they are kept when this returns."""
        for face in faces:
            if not face.name.strip() or len(face.name.encode()) > 500 or face.name == UNKNOWN:
                raise InputError(f"{face.name!r} cannot be a person's name; give 1 to 500 bytes, not {UNKNOWN!r}")
        if not faces:
            return
        if not self.store.exists:
            self.store.create({"name": self.model.name, "fingerprint": self.model.fingerprint}, len(faces[0].vector))
        ids = self.store.add(faces)
        # the pictures stay in the store
        self._faces += [Face(f.name, f.source, b"", f.weight, f.vector, id) for f, id in zip(faces, ids, strict=True)]
        self._names = None

    def keep_copy(self) -> None:
        """After enrolling many: lets the next opening be quick, see `snapshot`."""
        snapshot.keep(self.store, self._faces)

    def add_photo(self, name: str, image: np.ndarray, source: str, eye: Eye) -> None:
        """Enrols the main face of a photograph, RGB uint8 (H, W, 3). Raises InputError when there is none."""
        face = face_of(name, image, source, eye)
        self.add([face])

    def of(self, name: str) -> list[Face]:
        """A person's faces, without pictures. Raises InputError for someone who is not enrolled."""
        found = [face for face in self._faces if face.name == name]
        if not found:
            raise InputError(f"{name!r} is not in {self.store.address}; `marginface gallery list` tells who is")
        return found

    def __len__(self) -> int:
        """How many faces."""
        return len(self._faces)

    def remove(self, names: Sequence[str]) -> int:
        """They are no longer found; returns how many faces that were."""
        ids = [face.id for name in names for face in self.of(name)]
        snapshot.drop(self.store)
        self.store.remove(ids)
        gone = set(ids)
        self._faces = [face for face in self._faces if face.id not in gone]
        self._names = None
        return len(ids)

    def erase(self, names: Sequence[str]) -> int:
        """Like `remove`, and leaves nothing of them in the store's files: the whole store is written anew."""
        count = self.remove(names)
        self.store.rewrite()
        return count

    def count(self) -> dict[str, int]:
        """Faces of each person, by name."""
        counts = dict.fromkeys(self.names, 0)
        for face in self._faces:
            counts[face.name] += 1
        return counts

    def identify(self, vectors: np.ndarray, threshold: float, count: int = 5) -> list[Match]:
        """float32 (n, D), L2-normalised -> who each is; accepted at cosine >= threshold."""
        names, matrix = self._pooled()
        scores, rows = matrix.search(vectors, count)
        matches = []
        for similar, row in zip(scores.tolist(), rows.tolist(), strict=True):
            nearest = [(names[person], score) for person, score in zip(row, similar, strict=True)]
            name, best = nearest[0] if nearest else (UNKNOWN, -1.0)
            matches.append(Match(name if best >= threshold else UNKNOWN, best, nearest))
        return matches

    def explain(self, vector: np.ndarray, name: str) -> list[tuple[float, str, bytes]]:
        """A person's enrolled faces, nearest first: cosine to `vector` (D,), file name, JPEG."""
        faces = self.of(name)
        pictures = self.store.pictures([face.id for face in faces])
        rows = [(float(f.vector @ vector), f.source, p) for f, p in zip(faces, pictures, strict=True)]
        return sorted(rows, key=lambda row: -row[0])

    def export(self, folder: str | Path) -> int:
        """Everything that is stored, readable without us: faces.json, vectors.npy and the pictures. How many faces."""
        with replace_folder(folder) as temporary:
            rows, vectors = [], []
            for number, face in enumerate(self.store.faces(pictures=True) if self.store.exists else []):
                (temporary / f"{number:07d}.jpg").write_bytes(face.picture)
                rows.append({"name": face.name, "source": face.source, "weight": face.weight, "id": face.id})
                vectors.append(face.vector)
            model = {"name": self.model.name, "fingerprint": self.model.fingerprint}
            (temporary / "faces.json").write_text(
                json.dumps({"model": model, "faces": rows}, indent=1), encoding="utf-8"
            )
            np.save(temporary / "vectors.npy", np.array(vectors, np.float32))
        return len(rows)


def face_of(name: str, image: np.ndarray, source: str, eye: Eye) -> Face:
    """The main face of a photograph, ready to be enrolled. Raises InputError when there is none."""
    found = eye.detector(image)
    if not len(found):
        raise InputError(f"{source}: no face was found in it")
    seen = eye.look(image, found.at(np.array([most_central(found, *image.shape[:2])])))
    return Face(name, Path(source).name[-255:], small_picture(seen.crops[0]), float(seen.weights[0]), seen.vectors[0])


def enrol(gallery: Gallery, photos: Iterable[tuple[str, Path]], eye: Eye, batch: int = 32) -> Iterable[str | None]:
    """Enrols (name, path) in batches that are kept as they come; yields None, or why a photograph was left out."""
    waiting: list[Face] = []
    for name, path in photos:
        try:
            waiting.append(face_of(name, read_photo(path), str(path), eye))
        except InputError as error:
            yield str(error)
            continue
        if len(waiting) == batch:
            gallery.add(waiting)
            waiting = []
        yield None
    gallery.add(waiting)
    gallery.keep_copy()
