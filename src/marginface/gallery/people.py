"""The gallery: people by name, several photographs each, one pooled vector to search. Called by commands and pages."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from marginface.detection import most_central
from marginface.errors import InputError
from marginface.filenames import as_text
from marginface.files import replace_folder
from marginface.gallery.models import FaceModel
from marginface.gallery.photos import Eye, Photograph, decode_photo, read_file, small_picture
from marginface.gallery.search import Matrix
from marginface.gallery.store import Face, Store

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Match:
    """Who a face is. name: UNKNOWN below the threshold. nearest: the most similar people, best first, with cosines."""

    name: str
    similarity: float
    nearest: list[tuple[str, float]]


@dataclass(frozen=True)
class Enrolment:
    """What became of a photograph: "known" is already enrolled under this name.

    reason: why it was left out. others: names that the same photograph is enrolled under, too; most likely a mistake.
    """

    outcome: Literal["added", "known", "left out"]
    reason: str = ""
    others: tuple[str, ...] = ()


class Gallery:
    """The store is the truth; a copy of its vectors in memory answers searches."""

    def __init__(self, store: Store, model: FaceModel) -> None:
        """Raises InputError when the store's vectors are those of another model."""
        self.store, self.model = store, model
        self._faces: list[Face] = []
        self._people: dict[str, set[str]] = {}  # of each photograph, by its checksum
        self._names: list[str] | None = None  # made when somebody asks
        if store.exists:
            self._check(store.model())
            self._keep(store.load())
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

    def close(self) -> None:
        """Lets other processes write to the store."""
        self.store.close()

    def people_of(self, photo: str) -> set[str]:
        """Under which names the photograph with this SHA-256 is enrolled."""
        return self._people.get(photo, set())

    def _keep(self, faces: Iterable[Face]) -> None:
        for face in faces:
            self._faces.append(face)
            if face.photo:
                self._people.setdefault(face.photo, set()).add(face.name)
        self._names = None

    def add(self, faces: Sequence[Face]) -> None:
        """Enrols faces whose vectors are of this gallery's model; they are kept when this returns.

        A photograph that is enrolled under the same name already stays there once.
        """
        faces = [replace(face, name=valid_name(face.name)) for face in faces]
        new = [face for face in faces if face.name not in self._people.get(face.photo, ())]
        if not new:
            return
        if not self.store.exists:
            self.store.create({"name": self.model.name, "fingerprint": self.model.fingerprint}, len(new[0].vector))
        ids = self.store.add(new)
        # the pictures stay in the store
        self._keep({id: replace(face, picture=b"", id=id) for face, id in zip(new, ids, strict=True)}.values())

    def add_photo(self, name: str, path: Path | Photograph, eye: Eye) -> Enrolment:
        """Enrols the main face of a photograph. Raises InputError when there is none."""
        (enrolment,) = enrol(self, [(name, path)], eye)
        if enrolment.outcome == "left out":
            raise InputError(enrolment.reason)
        return enrolment

    def of(self, name: str) -> list[Face]:
        """A person's faces, without pictures. Raises InputError for someone who is not enrolled."""
        found = [face for face in self._faces if face.name == as_text(name)]
        if not found:
            raise InputError(
                f"{name!r} is not in {self.store.address}; ask `marginface gallery list` of the same --gallery"
            )
        return found

    def __len__(self) -> int:
        """How many faces."""
        return len(self._faces)

    def remove(self, names: Sequence[str]) -> int:
        """They are no longer found; returns how many faces that were."""
        return self._forget(names, self.store.remove)

    def erase(self, names: Sequence[str]) -> int:
        """Like `remove`, and leaves nothing of them in the store's files: the whole store is written anew."""
        return self._forget(names, self.store.erase)

    def _forget(self, names: Sequence[str], leave: Callable[[Sequence[str]], None]) -> int:
        ids = [face.id for name in dict.fromkeys(names) for face in self.of(name)]
        leave(ids)
        gone, faces = set(ids), self._faces
        self._faces, self._people = [], {}
        self._keep(face for face in faces if face.id not in gone)
        return len(ids)

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

    def export(self, folder: str | Path, overwrite: bool = False) -> int:
        """Write everything that is stored as faces.json, vectors.npy and pictures; return the number of faces.

        Raises InputError for a folder that exists, unless it is empty, or marginface wrote it and `overwrite` is set.
        """
        with replace_folder(folder, overwrite, [self.store.address]) as temporary:
            rows, vectors = [], []
            for number, face in enumerate(self.store.faces(pictures=True) if self.store.exists else []):
                (temporary / f"{number:07d}.jpg").write_bytes(face.picture)
                rows.append({"name": face.name, "source": face.source, "weight": face.weight, "id": face.id})
                vectors.append(face.vector)
            model = {"name": self.model.name, "fingerprint": self.model.fingerprint}
            (temporary / "faces.json").write_text(
                json.dumps({"model": model, "faces": rows}, indent=1), encoding="utf-8"
            )
            content = io.BytesIO()  # NumPy keeps the reason to itself when the disk is full
            np.save(content, np.array(vectors, np.float32))
            (temporary / "vectors.npy").write_bytes(content.getbuffer())
        return len(rows)


def valid_name(name: str) -> str:
    """The name as it is stored. Raises InputError for what cannot be a person's name."""
    name = as_text(name)
    if not name.strip() or len(name.encode()) > 500 or name == UNKNOWN:
        raise InputError(f"{name!r} cannot be a person's name; give 1 to 500 bytes, not {UNKNOWN!r}")
    return name


def face_of(name: str, image: np.ndarray, source: str, eye: Eye) -> Face:
    """The main face of a photograph, ready to be enrolled. Raises InputError when there is none."""
    found = eye.detector(image)
    if not len(found):
        raise InputError(f"{source}: no face was found in it")
    seen = eye.look(image, found.at(np.array([most_central(found, *image.shape[:2])])))
    return Face(
        name, as_text(Path(source).name)[-255:], small_picture(seen.crops[0]), float(seen.weights[0]), seen.vectors[0]
    )


def enrol(
    gallery: Gallery, photos: Iterable[tuple[str, Path | Photograph]], eye: Eye, batch: int = 32
) -> Iterator[Enrolment]:
    """Enrols (name, path) in batches that are kept as they come; yields what became of each photograph.

    A photograph is known by the SHA-256 of its bytes, so a second run only reads the files. Raises InputError for a
    name that cannot be a person's.
    """
    waiting: dict[tuple[str, str], Face] = {}
    for name, path in ((valid_name(name), path) for name, path in photos):
        try:
            data = read_file(path)
            photo = hashlib.sha256(data).hexdigest()
            people = {*gallery.people_of(photo), *(other for seen, other in waiting if seen == photo)}
            if name in people:
                yield Enrolment("known")
                continue
            waiting[photo, name] = replace(face_of(name, decode_photo(data, path), str(path), eye), photo=photo)
        except InputError as error:
            yield Enrolment("left out", str(error))
            continue
        if len(waiting) == batch:
            gallery.add(list(waiting.values()))
            waiting = {}
        yield Enrolment("added", others=tuple(sorted(people)))
    gallery.add(list(waiting.values()))
