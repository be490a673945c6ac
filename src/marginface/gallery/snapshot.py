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


def load_faces(store: Store) -> list[Face]:
    """Every face of the store, without pictures, by id; leaves a copy for the next time when there are many."""
    folder = _folder(store)
    if folder is None:
        return list(store.faces())
    count = store.count()
    kept = _read(folder, store.collection) if count >= LARGE else []
    faces = kept + list(store.faces(after=kept[-1].id)) if kept else []
    if len(faces) != count:
        faces, kept = list(store.faces()), []
    if len(faces) >= LARGE and len(faces) > 1.1 * len(kept):
        _write(folder, store.collection, faces)
    return faces


def drop(store: Store) -> None:
    """Takes the copy away, for good when this returns: nobody who is removed may come back with it."""
    folder = _folder(store)
    if folder is not None and folder.exists():
        shutil.rmtree(folder)
        sync(folder.parent)


def _folder(store: Store) -> Path | None:
    return None if "://" in store.address else Path(f"{store.address}.copy")


def _write(folder: Path, collection: str, faces: Sequence[Face]) -> None:
    rows = [[face.id, face.name, face.source, face.weight] for face in faces]
    text = json.dumps({"collection": collection, "rows": rows}).encode()
    vectors = np.stack([face.vector for face in faces])
    with replace_file(folder / "faces.npz", durable=False) as temporary, temporary.open("wb") as stream:
        np.savez(stream, rows=np.frombuffer(text, np.uint8), vectors=vectors)


def _read(folder: Path, collection: str) -> list[Face]:
    """Nothing where there is no copy, or it is damaged or of another collection."""
    try:
        with np.load(folder / "faces.npz", allow_pickle=False) as arrays:
            content, vectors = json.loads(arrays["rows"].tobytes()), arrays["vectors"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return []
    if content["collection"] != collection:
        return []
    rows = zip(content["rows"], vectors, strict=True)
    return [Face(name, source, b"", weight, vector, id) for (id, name, source, weight), vector in rows]
