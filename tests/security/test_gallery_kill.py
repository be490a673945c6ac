"""kill -9 at any moment while people are enrolled and erased: what was done stays done, and the gallery opens."""

import contextlib
import multiprocessing
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gallery_writer import write_until_killed
from marginface.gallery.people import Gallery
from marginface.gallery.store import Face, Store
from recognition import MODEL

PRELOADED = ("marginface.gallery.people", "pyarrow.parquet", "pymilvus", "milvus_lite.adapter.grpc.server")


def stored(address: str) -> dict[str, set[str]]:
    """Photographs of each person, read as a command reads them."""
    people: dict[str, set[str]] = {}
    for face in Store(address).faces():
        people.setdefault(face.name, set()).add(face.photo)
    return people


@pytest.mark.parametrize("kills", [6, pytest.param(150, marks=pytest.mark.slow)])
def test_killed_at_any_moment(tmp_path: Path, kills: int) -> None:
    processes = multiprocessing.get_context("forkserver")  # a process starts in the time that a fork takes
    processes.set_forkserver_preload([*PRELOADED])
    address, random = str(tmp_path / "people.db"), np.random.default_rng(kills)
    expected: dict[str, set[str]] = {}
    erased: set[str] = set()
    for kill in range(kills):
        here, there = processes.Pipe(duplex=False)
        writer = processes.Process(target=write_until_killed, args=(address, kill, there), daemon=True)
        writer.start()
        there.close()
        assert here.poll(120), "the writer does not start"
        end = time.monotonic() + random.exponential(0.4)
        while time.monotonic() < end:
            time.sleep(0.001)
        writer.kill()
        writer.join()
        begun: tuple[str, str, list[str]] | None = None
        while here.poll():
            try:
                message = here.recv()
            except EOFError:
                break
            if message[0] in ("add", "erase"):
                begun = message
            elif message[0] == "done" and begun is not None:
                finish(begun, expected, erased)
                begun = None
        found = stored(address)
        assert not erased & found.keys()
        if begun is not None:  # all of it, a part, or nothing
            verb, name, photos = begun
            expected[name] = found.get(name, set())
            assert expected[name] <= set(photos)
            if not expected[name]:
                del expected[name]
                erased |= {name} if verb == "erase" else set()
        assert found == expected
    with closing(Gallery(Store(address, write=True), MODEL)):
        pass  # finishes what the last one began
    everyone = b"".join(path.read_bytes() for path in Path(address).rglob("*") if path.is_file())
    assert not [name for name in erased if name.encode() in everyone]


@pytest.mark.parametrize(
    "step", ["delete", "create_collection", "upsert", "insert", "flush", "alter_alias", "drop_collection"]
)
def test_an_erasure_that_was_begun_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Whichever call of the database is the last one, the next who writes leaves no byte of whom it began to remove."""
    address = str(tmp_path / "people.db")
    vectors = np.eye(3, dtype=np.float32)
    faces = [Face(f"person{i}", "a.jpg", b"x", 1.0, vector, f"photo{i}") for i, vector in enumerate(vectors)]
    gallery = Gallery(Store(address, write=True), MODEL)
    gallery.add(faces)
    call = Store._call

    def broken(self: Store, method: str, *words: Any, **more: Any) -> Any:
        if method == step:
            raise KeyboardInterrupt
        return call(self, method, *words, **more)

    monkeypatch.setattr(Store, "_call", broken)
    with contextlib.suppress(KeyboardInterrupt):
        gallery.erase(["person1"])
    monkeypatch.undo()
    gallery.close()
    found = stored(address).keys()
    assert found >= {"person0", "person2"}
    with closing(Store(address, write=True)):
        pass
    everything = b"".join(path.read_bytes() for path in Path(address).rglob("*") if path.is_file())
    assert stored(address).keys() == found
    assert (b"person1" in everything) == ("person1" in found)
    assert b"person2" in everything


def finish(step: tuple[str, str, list[str]], expected: dict[str, set[str]], erased: set[str]) -> None:
    verb, name, photos = step
    if verb == "add":
        expected[name] = set(photos)
    else:
        del expected[name]
        erased.add(name)
