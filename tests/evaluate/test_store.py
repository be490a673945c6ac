"""Embeddings on disk: the same as in memory, whole after any interruption, and never somebody else's."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.evaluate import images as images_module
from marginface.evaluate import store
from marginface.evaluate.embeddings import embed_images
from marginface.evaluate.images import Images
from marginface.evaluate.store import embed_to_disk
from people import write_people


@pytest.fixture
def model() -> Embedder:
    torch.manual_seed(0)
    return Embedder.create(ModelConfig("small", 16, {"width": 4}))


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.setattr(images_module, "CHUNK", 4)
    paths = sorted(write_people(tmp_path / "people", people=5, images=3).glob("*/*"))
    return Images.of_files("people", [str(path) for path in paths], paths)


class Halt(Exception):
    """What a signal raises through the progress bar."""


def stop_after(rows: int) -> store.Progress:
    def progress(done: int, total: int) -> None:
        if done >= rows:
            raise Halt

    return progress


def test_the_same_as_in_memory(model: Embedder, faces: Images, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found, folder = embed_to_disk(model, faces, tmp_path / "s", progress=lambda *done: seen.append(done))
    expected = embed_images(model, faces)
    np.testing.assert_array_equal(found.original, expected.original)
    np.testing.assert_array_equal(found.flipped, expected.flipped)
    assert seen == [(4, 15), (8, 15), (12, 15), (15, 15)]
    assert sorted(path.name for path in folder.iterdir()) == ["done", "flipped.f32", "original.f32"]
    assert found.xnorm == pytest.approx(np.mean(np.linalg.norm([expected.original, expected.flipped], axis=2)))


@pytest.mark.parametrize("often", [0.0, 100.0])
def test_an_interruption_changes_nothing(
    model: Embedder, faces: Images, tmp_path: Path, often: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SECONDS", often)
    whole, _ = embed_to_disk(model, faces, tmp_path / "a")
    for rows in (4, 12):
        with pytest.raises(Halt):
            embed_to_disk(model, faces, tmp_path / "b", progress=stop_after(rows))
    seen: list[int] = []
    found, folder = embed_to_disk(model, faces, tmp_path / "b", progress=lambda done, total: seen.append(done))
    assert seen == [15]
    for name in ("original.f32", "flipped.f32"):
        assert (folder / name).read_bytes() == (next((tmp_path / "a").iterdir()) / name).read_bytes()
    np.testing.assert_array_equal(found.fused, whole.fused)


def test_killed_between_rows_and_mark(model: Embedder, faces: Images, tmp_path: Path) -> None:
    whole, folder = embed_to_disk(model, faces, tmp_path / "a")
    expected = np.array(whole.fused)
    (folder / "done").write_bytes(b"\1\1\0\0")
    rows = np.memmap(folder / "original.f32", np.float32, "r+", shape=(15, 16))
    rows[8:] = 7
    rows.flush()
    np.testing.assert_array_equal(embed_to_disk(model, faces, tmp_path / "a")[0].fused, expected)


@pytest.mark.parametrize("mark", [b"", b"\1\1\1\1", b"\1" * 5, b"xxxx"])
def test_a_damaged_mark_or_file_starts_anew(model: Embedder, faces: Images, tmp_path: Path, mark: bytes) -> None:
    whole, folder = embed_to_disk(model, faces, tmp_path / "a")
    expected = np.array(whole.fused)
    (folder / "done").write_bytes(mark)
    (folder / "flipped.f32").write_bytes(b"short")
    np.testing.assert_array_equal(embed_to_disk(model, faces, tmp_path / "a")[0].fused, expected)
    assert (folder / "done").read_bytes() == b"\1\1\1\1"


@pytest.mark.parametrize(("rank", "marks"), [(0, b"\1\0\1\0"), (1, b"\0\1\0\1")])
def test_one_process_goes_on_where_one_of_two_stopped(
    model: Embedder, faces: Images, tmp_path: Path, rank: int, marks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(store, "rank_and_size", lambda: (rank, 2))
        _, folder = embed_to_disk(model, faces, tmp_path, progress=lambda done, total: seen.append(done))
    assert (folder / "done").read_bytes() == marks
    assert seen == [8, 15 - rank]
    found, _ = embed_to_disk(model, faces, tmp_path)
    np.testing.assert_array_equal(found.fused, embed_images(model, faces).fused)


def test_everything_that_matters_has_a_folder_of_its_own(model: Embedder, faces: Images, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = Embedder.create(ModelConfig("small", 16, {"width": 4}))
    fewer = dataclasses.replace(faces, keys=faces.keys[:8])
    folders = [
        embed_to_disk(model, faces, tmp_path)[1],
        embed_to_disk(model, faces, tmp_path, flip=False)[1],
        embed_to_disk(model, faces, tmp_path, way="blur:3")[1],
        embed_to_disk(other, faces, tmp_path)[1],
        embed_to_disk(model, fewer, tmp_path)[1],
    ]
    assert len(set(folders)) == 5


def test_missing_files_are_counted_before_any_work(faces: Images) -> None:
    faces.check()
    for path in faces.paths[3:5]:
        path.unlink()
    with pytest.raises(InputError, match=r"people: 2 of its 15 images are not there \(first: .*p01_0001.jpg"):
        faces.check()
