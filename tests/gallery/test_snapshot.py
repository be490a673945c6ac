"""The copy of a large store: what it answers is what the store says, whatever happened in between."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from marginface.gallery import snapshot
from marginface.gallery.people import Gallery
from marginface.gallery.store import Face, Store
from recognition import MODEL

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(snapshot, "LARGE", 10)
    store = Store(str(tmp_path / "people.db"))
    yield store
    store.close()


def faces(start: int, count: int) -> list[Face]:
    random = np.random.default_rng(start)
    return [Face(f"p{start + i}", "a.jpg", b"x", 1.0, v) for i, v in enumerate(random.random((count, 3), np.float32))]


def same(found: list[Face], store: Store) -> bool:
    told = [(face.id, face.name, face.source, face.weight, face.vector.tolist()) for face in found]
    return told == [(face.id, face.name, face.source, face.weight, face.vector.tolist()) for face in store.faces()]


def test_a_copy_is_used_and_what_came_later_is_added(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Gallery(store, MODEL).add(faces(0, 20))
    assert same(snapshot.load_faces(store), store)
    asked = []
    read = Store.faces
    monkeypatch.setattr(Store, "faces", lambda self, **words: asked.append(words) or read(self, **words))
    assert len(snapshot.load_faces(store)) == 20
    Gallery(store, MODEL).add(faces(20, 5))
    found = snapshot.load_faces(store)
    assert all(words.get("after") for words in asked), asked
    assert same(found, store)


def test_enrolling_leaves_a_copy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = Gallery(store, MODEL)
    gallery.add(faces(0, 20))
    gallery.keep_copy()
    whole = list(store.faces())
    read = Store.faces
    monkeypatch.setattr(Store, "faces", lambda self, after: read(self, after=after))  # not all of them again
    found = snapshot.load_faces(store)
    assert [face.id for face in found] == [face.id for face in whole]
    assert all((one.vector == other.vector).all() for one, other in zip(found, whole, strict=True))


def test_nobody_comes_back(store: Store) -> None:
    gallery = Gallery(store, MODEL)
    gallery.add(faces(0, 30))
    for leave in (gallery.remove, gallery.erase):
        snapshot.load_faces(store)
        copy = Path(f"{store.address}.copy")
        assert copy.exists()
        leave([gallery.names[3]])
        assert not copy.exists()
        assert same(snapshot.load_faces(store), store)
        assert Gallery(store, MODEL).names == gallery.names


def test_a_copy_that_does_not_fit_is_no_copy(store: Store) -> None:
    Gallery(store, MODEL).add(faces(0, 20))
    first = snapshot.load_faces(store)
    store.remove([first[4].id])  # past the gallery
    assert same(snapshot.load_faces(store), store)
    Path(f"{store.address}.copy/faces.npz").write_bytes(b"damaged")
    assert same(snapshot.load_faces(store), store)
    store.rewrite()
    assert same(snapshot.load_faces(store), store)


def test_a_small_store_has_none(store: Store, tmp_path: Path) -> None:
    Gallery(store, MODEL).add(faces(0, 5))
    assert same(snapshot.load_faces(store), store)
    assert [path.name for path in tmp_path.iterdir()] == ["people.db"]
