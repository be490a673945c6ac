"""Enrolling, identifying and erasing, with the same tests on a store in a file and on a server on loopback."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.gallery.models import FaceModel
from marginface.gallery.people import UNKNOWN, Enrolment, Gallery, enrol
from marginface.gallery.photos import Eye
from marginface.gallery.store import Face, Store
from recognition import COLOURS, EYE, MODEL, STRANGER, photograph, save


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`milvus-lite server` on a free port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)]
    process = subprocess.Popen([sys.executable, "-m", "milvus_lite", *words], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(params=["file", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    address = str(tmp_path / "people.db") if request.param == "file" else request.getfixturevalue("server")
    opened = Store(address, f"faces{time.time_ns()}", write=True)
    yield opened
    opened.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """<name>20.png and <name>90.png of each person, and dark.png of nobody."""
    for name, colour in COLOURS.items():
        for left in (20, 90):
            save(tmp_path / "photos" / f"{name}{left}.png", photograph((colour, left, 20)))
    save(tmp_path / "photos" / "dark.png", np.zeros((50, 50, 3), np.uint8))
    return tmp_path / "photos"


def enrolled(store: Store, photos: Path) -> Gallery:
    gallery = Gallery(store, MODEL)
    for name in COLOURS:
        for left in (20, 90):
            assert gallery.add_photo(name, photos / f"{name}{left}.png", EYE).outcome == "added"
    return gallery


def test_people_are_known_and_strangers_are_not(store: Store, photos: Path) -> None:
    gallery = enrolled(store, photos)
    image = photograph((COLOURS["Bob"], 5, 30), (STRANGER, 85, 30), (COLOURS["Eve"], 165, 30))
    seen = EYE.see(image)
    order = np.argsort(seen.found.boxes[:, 0])
    matches = [gallery.identify(seen.vectors, 0.9)[i] for i in order]
    assert [match.name for match in matches] == ["Bob", UNKNOWN, "Eve"]
    assert matches[0].nearest[0][1] == pytest.approx(matches[0].similarity)
    assert [len(match.nearest) for match in matches] == [3, 3, 3]
    assert Gallery(store, MODEL).count() == {"Ann": 2, "Bob": 2, "Eve": 2}  # another opening sees the same


def test_templates_are_weighted_means(store: Store) -> None:
    gallery = Gallery(store, MODEL)
    a, b = np.array([1, 0, 0], np.float32), np.array([0, 1, 0], np.float32)
    gallery.add([Face("Ann", "a", b"", 3.0, a), Face("Ann", "b", b"", 1.0, b)])
    assert gallery.identify(a[None], 0.5)[0].similarity == pytest.approx(0.75, abs=1e-6)  # the mean of the cosines
    assert gallery.identify(b[None], 0.5)[0].name == UNKNOWN


def test_models_never_mix(store: Store, photos: Path) -> None:
    enrolled(store, photos)
    other = FaceModel("other", "4567", MODEL.network)
    with pytest.raises(InputError, match=r"holds vectors of the model colours \(0123\), not of other \(4567\)"):
        Gallery(store, other)


def test_removed_people_are_unknown(store: Store, photos: Path) -> None:
    gallery = enrolled(store, photos)
    assert gallery.remove(["Bob"]) == 2
    bob = EYE.see(photograph((COLOURS["Bob"], 20, 20))).vectors
    for one in (gallery, Gallery(store, MODEL)):
        assert one.names == ["Ann", "Eve"]
        assert one.identify(bob, 0.9)[0].name == UNKNOWN
    with pytest.raises(InputError, match=r"'Bob' is not in"):
        gallery.of("Bob")


def test_erasing_keeps_all_others_whole(store: Store, photos: Path) -> None:
    gallery = enrolled(store, photos)
    before = {face.id: face for face in store.faces(pictures=True) if face.name != "Bob"}
    assert gallery.erase(["Bob"]) == 2
    after = {face.id: face for face in store.faces(pictures=True)}
    assert set(after) == set(before)
    for id, face in after.items():
        assert face.picture == before[id].picture
        assert (face.vector == before[id].vector).all()
    assert Gallery(store, MODEL).names == ["Ann", "Eve"]
    assert gallery.add_photo("Bob", photos / "Bob20.png", EYE).outcome == "added"  # its checksum was erased, too
    assert gallery.count() == {"Ann": 2, "Bob": 1, "Eve": 2}


def test_an_explanation_shows_the_pictures(store: Store, photos: Path) -> None:
    gallery = enrolled(store, photos)
    vector = EYE.see(photograph((COLOURS["Ann"], 20, 20))).vectors[0]
    rows = gallery.explain(vector, "Ann")
    assert [source for _, source, _ in rows] in (["Ann20.png", "Ann90.png"], ["Ann90.png", "Ann20.png"])
    assert rows[0][0] >= rows[1][0] > 0.99
    assert all(picture.startswith(b"\xff\xd8") for _, _, picture in rows)


def test_everything_can_be_taken_out(store: Store, photos: Path, tmp_path: Path) -> None:
    assert enrolled(store, photos).export(tmp_path / "out") == 6
    content = json.loads((tmp_path / "out" / "faces.json").read_text())
    assert content["model"] == {"name": "colours", "fingerprint": "0123"}
    vectors = np.load(tmp_path / "out" / "vectors.npy")
    assert vectors.shape == (6, 3)
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 6


def test_an_empty_gallery_knows_nobody(store: Store, photos: Path) -> None:
    gallery = Gallery(store, MODEL)
    assert gallery.identify(np.ones((2, 3), np.float32), 0.5)[1].name == UNKNOWN
    with pytest.raises(InputError, match=r"no face was found"):
        gallery.add_photo("Ann", photos / "dark.png", EYE)
    for name in ("", "  ", UNKNOWN, "x" * 600):
        with pytest.raises(InputError, match="cannot be a person's name"):
            gallery.add_photo(name, photos / "Ann20.png", EYE)
    assert not store.exists


def test_an_erased_person_leaves_no_trace_in_the_files(tmp_path: Path) -> None:
    """Not a vector, name, file name, checksum of a photograph, picture or id; of all others every one."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = FaceModel("wide", "89", type("Wide", (), {"length": 64, "quality": False})())
    faces = [
        Face(f"person{i // 4:02d}", f"photo-{i:02d}.jpg", random.bytes(60), 1.0, v, random.bytes(32).hex())
        for i, v in enumerate(vectors)
    ]
    address = str(tmp_path / "people.db")
    for settled in (faces[:20], faces[20:]):  # the first half lies in other files than the second
        with closing(Gallery(Store(address, write=True), model)) as gallery:
            gallery.add(settled)
            stored = {face.id: face for face in gallery.store.faces(pictures=True)}
            everything = raw(tmp_path / "people.db")
    traces = {face.name: set[bytes]() for face in faces}
    for face in stored.values():
        words = [face.id, face.name, face.source, face.photo, base64.b64encode(face.picture).decode()]
        traces[face.name] |= {word.encode() for word in words} | {face.vector.tobytes()}
    for name, words in traces.items():
        assert all(word in everything for word in words), f"the test must be able to see {name}"
    with closing(Gallery(Store(address, write=True), model)) as gallery:
        gallery.erase(["person03", "person07"])
        for _ in range(2):  # once as it is, and once settled
            everything = raw(tmp_path / "people.db")
            for name, words in traces.items():
                erased = name in ("person03", "person07")
                assert [word for word in words if (word in everything) == erased] == [], name
            gallery.close()


def raw(folder: Path) -> bytes:
    """The bytes of every file, and what columns of Parquet hold, which are compressed."""
    import pyarrow.parquet as parquet

    parts = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    for file in folder.rglob("*.parquet"):
        for name, column in parquet.read_table(file).to_pydict().items():
            parts += [np.array(row, np.float32).tobytes() if name == "vector" else str(row).encode() for row in column]
    return b" ".join(parts)


@pytest.mark.parametrize("same", [True, False])
def test_a_photograph_is_enrolled_once(store: Store, photos: Path, same: bool) -> None:
    """As often as it is given, by whichever opening of the store."""
    gallery = enrolled(store, photos)
    if not same:
        gallery = Gallery(store, MODEL)
    blind = Eye(lambda image: pytest.fail("nothing may be detected in a photograph that is known"), MODEL)
    (photos / "copy.png").write_bytes((photos / "Ann20.png").read_bytes())
    for path in ("Ann20.png", "Ann90.png", "copy.png"):
        assert gallery.add_photo("Ann", photos / path, blind) == Enrolment("known")
    assert gallery.count() == {"Ann": 2, "Bob": 2, "Eve": 2}
    assert len(list(store.faces())) == 6
    gallery.remove(["Ann"])
    assert gallery.add_photo("Ann", photos / "Ann20.png", EYE).outcome == "added"
    assert Gallery(store, MODEL).count() == {"Ann": 1, "Bob": 2, "Eve": 2}


def test_two_who_enrol_the_same_at_once(store: Store, photos: Path) -> None:
    """Neither knows of the other's photographs, as with two clients of a server."""
    store.create({"name": MODEL.name, "fingerprint": MODEL.fingerprint}, 3)
    first, second = Gallery(store, MODEL), Gallery(store, MODEL)
    for gallery in (first, second, first):
        gallery.add_photo("Ann", photos / "Ann20.png", EYE)
        gallery.add_photo("Bob", photos / "Bob20.png", EYE)
    assert Gallery(store, MODEL).count() == {"Ann": 1, "Bob": 1}
    first.remove(["Ann"])
    second.remove(["Ann"])
    assert Gallery(store, MODEL).count() == {"Bob": 1}


def test_one_photograph_of_two_people_is_doubtful(store: Store, photos: Path) -> None:
    gallery = enrolled(store, photos)
    assert gallery.add_photo("Bob", photos / "Ann20.png", EYE) == Enrolment("added", others=("Ann",))
    assert gallery.add_photo("Eve", photos / "Ann20.png", EYE).others == ("Ann", "Bob")
    assert gallery.count() == {"Ann": 2, "Bob": 3, "Eve": 3}


def test_names_that_are_not_utf8(store: Store, photos: Path) -> None:
    """Two that differ in such a byte stay two."""
    gallery = Gallery(store, MODEL)
    for name, byte in (("Ann", b"\xe9"), ("Bob", b"\xe8")):
        path = Path(os.fsdecode(b"Andr" + byte)) / os.fsdecode(byte + b".png")
        (photos / path).parent.mkdir()
        (photos / path).write_bytes((photos / f"{name}20.png").read_bytes())
        gallery.add_photo(path.parent.name, photos / path, EYE)
    assert Gallery(store, MODEL).count() == {r"Andr\xe8": 1, r"Andr\xe9": 1}
    assert gallery.erase([os.fsdecode(b"Andr\xe9")]) == 1
    assert gallery.erase([r"Andr\xe8"]) == 1


def test_another_collection_of_other_faces_is_left_alone(store: Store, photos: Path) -> None:
    """A crash while the store is written anew leaves a second collection, but not each second one is from that."""
    gallery = enrolled(store, photos)
    address, alias = store.address, store.collection.rsplit("_", 1)[0]
    faces = [replace(face, id="") for face in store.faces(pictures=True)]
    part = store._new_collection({}, 3)
    store._insert(part, [replace(face, id=face.photo[:32]) for face in faces])
    store.close()
    again = Store(address, alias, write=True)
    assert len(Gallery(again, MODEL)) == len(gallery)
    assert part in again._call("list_collections")
    whole = again._new_collection({}, 3)
    again._insert(whole, list(again.faces(pictures=True))[:4])
    again.close()
    last = Store(address, alias, write=True)
    assert {part, last.collection} <= set(last._call("list_collections"))
    assert whole not in last._call("list_collections")
    assert len(list(last.faces())) == len(gallery)
    last.close()


def test_a_folder_is_enrolled_once(store: Store, photos: Path) -> None:
    gallery = Gallery(store, MODEL)
    people = [(path.name[:3], path) for path in sorted(photos.glob("*.png"))]
    outcomes = [photo.outcome for photo in enrol(gallery, [*people, *people], EYE, batch=4)]
    assert outcomes == ["added"] * 6 + ["left out"] + ["known"] * 6 + ["left out"]
    assert len(gallery) == 6


def test_only_folders_and_servers_are_galleries() -> None:
    with pytest.raises(InputError, match=r"people\.txt is no gallery: give a folder that ends in \.db"):
        Store("people.txt")
