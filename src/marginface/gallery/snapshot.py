"""A copy of a large store's vectors beside it: reading a million rows out of Milvus takes minutes. For `people`.

The store stays the truth. A copy is used only while it is of the same collection and, with the faces that the store
has got since, of the same number; `drop` takes it away before anything is removed. Only a store in a file has one.
"""

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marginface.files import replace_file, sync
from marginface.gallery.store import Face, Store

LARGE = 10_000  # faces from which on a copy pays
UNREADABLE = (OSError, ValueError, KeyError, zipfile.BadZipFile)


def load_faces(store: Store) -> list[Face]:
    """Every face of the store, without pictures, by id; leaves a copy for the next time when there are many."""
    folder = _folder(store)
    if folder is None:
        return list(store.faces())
    count = store.count()
    faces = _read(folder, store.collection) if count >= LARGE else []
    if faces:
        faces += store.faces(after=faces[-1].id)
    if len(faces) != count:
        drop(store)
        faces = list(store.faces())
    keep(store, faces)
    return faces


def keep(store: Store, faces: Sequence[Face]) -> None:
    """Leaves a copy, where there are many faces and a tenth of them are not in one yet. faces: the store's, by id."""
    folder = _folder(store)
    if folder is None or len(faces) < LARGE:
        return
    collection, kept = _about(folder)
    if collection != store.collection or len(faces) > 1.1 * kept:
        _write(folder, store.collection, faces)


def drop(store: Store) -> None:
    """Takes the copy away, for good when this returns: nobody who is removed may come back with it."""
    folder = _folder(store)
    if folder is not None and folder.exists():
        shutil.rmtree(folder)
        sync(folder.parent)


def _folder(store: Store) -> Path | None:
    return None if "://" in store.address else Path(f"{store.address}.copy")


def _write(folder: Path, collection: str, faces: Sequence[Face]) -> None:
    rows = json.dumps([[face.id, face.name, face.source, face.weight] for face in faces]).encode()
    vectors = np.stack([face.vector for face in faces])
    with replace_file(folder / "faces.npz", durable=False) as temporary, temporary.open("wb") as stream:
        np.savez(stream, about=np.array([collection, len(faces)]), rows=np.frombuffer(rows, np.uint8), vectors=vectors)


def _about(folder: Path) -> tuple[str, int]:
    """The collection that a copy is of, and how many faces it has; nothing where there is none."""
    try:
        with np.load(folder / "faces.npz", allow_pickle=False) as arrays:
            collection, count = arrays["about"].tolist()
            return collection, int(count)
    except UNREADABLE:
        return "", 0


def _read(folder: Path, collection: str) -> list[Face]:
    """Nothing where there is no copy, or it is damaged or of another collection."""
    if _about(folder)[0] != collection:
        return []
    try:
        with np.load(folder / "faces.npz", allow_pickle=False) as arrays:
            content, vectors = json.loads(arrays["rows"].tobytes()), arrays["vectors"]
        rows = zip(content, vectors, strict=True)
    except UNREADABLE:
        return []
    return [Face(name, source, b"", weight, vector, id) for (id, name, source, weight), vector in rows]
