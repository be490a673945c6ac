"""Enrolling, identifying and erasing, with the same tests on a store in a file and on a server on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.gallery.models import FaceModel
from marginface.gallery.people import UNKNOWN, Gallery
from marginface.gallery.store import Face, Store
from recognition import COLOURS, EYE, MODEL, STRANGER, photograph

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


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
    opened = Store(address, f"faces{time.time_ns()}")
    yield opened
    opened.close()


def enrolled(store: Store) -> Gallery:
    gallery = Gallery(store, MODEL)
    for name, colour in COLOURS.items():
        for left in (20, 90):
            gallery.add_photo(name, photograph((colour, left, 20)), f"photos/{name}{left}.jpg", EYE)
    return gallery


def test_people_are_known_and_strangers_are_not(store: Store) -> None:
    gallery = enrolled(store)
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


def test_models_never_mix(store: Store) -> None:
    enrolled(store)
    other = FaceModel("other", "4567", MODEL.network)
    with pytest.raises(InputError, match=r"holds vectors of the model colours \(0123\), not of other \(4567\)"):
        Gallery(store, other)


def test_removed_people_are_unknown(store: Store) -> None:
    gallery = enrolled(store)
    assert gallery.remove(["Bob"]) == 2
    bob = EYE.see(photograph((COLOURS["Bob"], 20, 20))).vectors
    for one in (gallery, Gallery(store, MODEL)):
        assert one.names == ["Ann", "Eve"]
        assert one.identify(bob, 0.9)[0].name == UNKNOWN
    with pytest.raises(InputError, match=r"'Bob' is not in"):
        gallery.of("Bob")


def test_erasing_keeps_all_others_whole(store: Store) -> None:
    gallery = enrolled(store)
    before = {face.id: face for face in store.faces(pictures=True) if face.name != "Bob"}
    assert gallery.erase(["Bob"]) == 2
    after = {face.id: face for face in store.faces(pictures=True)}
    assert set(after) == set(before)
    for id, face in after.items():
        assert face.picture == before[id].picture
        assert (face.vector == before[id].vector).all()
    assert Gallery(store, MODEL).names == ["Ann", "Eve"]
    gallery.add_photo("Bob", photograph((COLOURS["Bob"], 20, 20)), "back.jpg", EYE)
    assert gallery.count() == {"Ann": 2, "Bob": 1, "Eve": 2}


def test_an_explanation_shows_the_pictures(store: Store) -> None:
    gallery = enrolled(store)
    vector = EYE.see(photograph((COLOURS["Ann"], 20, 20))).vectors[0]
    rows = gallery.explain(vector, "Ann")
    assert [source for _, source, _ in rows] in (["Ann20.jpg", "Ann90.jpg"], ["Ann90.jpg", "Ann20.jpg"])
    assert rows[0][0] >= rows[1][0] > 0.99
    assert all(picture.startswith(b"\xff\xd8") for _, _, picture in rows)


def test_everything_can_be_taken_out(store: Store, tmp_path: Path) -> None:
    assert enrolled(store).export(tmp_path / "out") == 6
    content = json.loads((tmp_path / "out" / "faces.json").read_text())
    assert content["model"] == {"name": "colours", "fingerprint": "0123"}
    vectors = np.load(tmp_path / "out" / "vectors.npy")
    assert vectors.shape == (6, 3)
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 6


def test_an_empty_gallery_knows_nobody(store: Store) -> None:
    gallery = Gallery(store, MODEL)
    assert gallery.identify(np.ones((2, 3), np.float32), 0.5)[1].name == UNKNOWN
    with pytest.raises(InputError, match=r"no face was found"):
        gallery.add_photo("Ann", np.zeros((50, 50, 3), np.uint8), "dark.jpg", EYE)
    for name in ("", "  ", UNKNOWN, "x" * 600):
        with pytest.raises(InputError, match="cannot be a person's name"):
            gallery.add_photo(name, photograph((STRANGER, 20, 20)), "a.jpg", EYE)
    assert not store.exists


def remains(folder: Path, traces: list[bytes]) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files for trace in traces if trace in path.read_bytes()]


def test_an_erased_person_leaves_no_trace_in_the_files(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "people.db"))
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = FaceModel("wide", "89", type("Wide", (), {"length": 64, "quality": False})())
    gallery = Gallery(store, model)
    gallery.add([Face(f"person{i // 4:02d}", "photo.jpg", bytes([i]) * 40, 1.0, v) for i, v in enumerate(vectors)])
    import pyarrow.parquet as parquet

    def stored() -> set[bytes]:
        found: set[bytes] = set()
        for file in (tmp_path / "people.db").rglob("*.parquet"):
            table = parquet.read_table(file)
            if "vector" in table.column_names:
                found |= {np.array(row, np.float32).tobytes() for row in table["vector"].to_pylist()}
        return found

    store._client.flush(store._current())
    gone = [vector.tobytes() for vector in vectors[12:16]]
    assert set(gone) <= stored(), "the test must be able to see a vector"
    gallery.erase(["person03"])
    left = stored()
    assert not set(gone) & left
    assert {vector.tobytes() for vector in vectors[16:]} <= left
    assert remains(tmp_path / "people.db", [b"person03", *[vector[:6] for vector in gone]]) == []
    store.close()


WRITER = """
import sys, numpy as np
from marginface.gallery.people import Gallery
from marginface.gallery.store import Face, Store
from recognition import MODEL
gallery = Gallery(Store(sys.argv[1]), MODEL)
for number in range(1000):
    gallery.add([Face(f"person{number}", "photo.jpg", b"jpeg", 1.0, np.eye(3, dtype=np.float32)[number % 3])])
    print(number, flush=True)
    if number == 7:
        gallery.erase(["person3"])
        print("erased", flush=True)
"""


@pytest.mark.parametrize("lines", [4, 10])
def test_a_killed_process_loses_nobody(tmp_path: Path, lines: int) -> None:
    """kill -9 at any moment after `add` returned, before and after the store was written anew."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    words = [sys.executable, "-c", WRITER, str(tmp_path / "people.db")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
    names = Gallery(Store(str(tmp_path / "people.db")), MODEL).names
    promised = {f"person{line}" for line in told if line.isdigit()}
    assert "" not in told
    if "erased" in told:
        assert "person3" not in names
        promised -= {"person3"}
    assert promised <= set(names)


def test_what_is_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"people\.txt is no gallery: give a file that ends in \.db"):
        Store(str(tmp_path / "people.txt"))
    (tmp_path / "text.db").write_text("not a database")
    with pytest.raises(InputError, match=r"text\.db cannot be opened"):
        Store(str(tmp_path / "text.db"))
