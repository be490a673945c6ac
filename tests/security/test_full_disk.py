"""A disk that takes no more: every writer says so in one sentence that names what the user named, and leaves nothing.

The limit on the size of a file stands for the disk: the system refuses every byte beyond, at the first write, in the
middle of the file, or only when the last byte is flushed.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch

from bounded import largest_file
from marginface import cli
from marginface.align import align_faces
from marginface.commands import margins
from marginface.convert import convert, convert_pairs
from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.evaluate.folder import embed_folder
from marginface.evaluate.images import Images
from marginface.evaluate.store import embed_to_disk
from marginface.export import export
from marginface.files import naming, replace_file, replace_folder
from marginface.gallery.drawing import write_photo
from marginface.gallery.people import Gallery
from marginface.readers import open_reader
from marginface.readers.synthetic import SyntheticFaces, write_folder
from marginface.tensor_file import write_tensors
from marginface.training.monitor import MetricsFile
from marginface.training.run import Run, create_run
from marginface.training.samples import write_png
from marginface.video.annotate import _writing
from people import write_people

MODEL = Embedder.create(ModelConfig("small", 16, {"width": 4}))
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four faces of each of twenty people."""
    return write_people(tmp_path_factory.mktemp("people") / "people", people=20)


def export_gallery(target: Path) -> None:
    faces = [SimpleNamespace(picture=bytes(3000), name="Ann", source="a", weight=1.0, id=1, vector=np.zeros(900))] * 9
    store = SimpleNamespace(address="gallery.db", exists=True, faces=lambda pictures: faces)
    Gallery.export(cast(Any, SimpleNamespace(store=store, model=SimpleNamespace(name="m", fingerprint="0"))), target)


def write_heads(target: Path) -> None:
    with replace_folder(target) as temporary:
        write_tensors(temporary / "head.safetensors", {"weight": torch.zeros(100, 16)})


def write_video(target: Path) -> None:
    with _writing(str(target), 25, False, "source") as video:
        for _ in range(20):
            video.write(PICTURE)


def make_run(target: Path) -> None:
    def fill(run: Run) -> None:
        write_png(run.samples, PICTURE)
        run.config.write_text("a: 1\n" * 1000, encoding="utf-8")

    create_run(str(target.parent), target.name, False, fill)


WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "model": lambda target, _: MODEL.save(target),
    "heads": lambda target, _: write_heads(target),
    "weights.safetensors": lambda target, _: export(MODEL, target, "safetensors"),
    "embeddings.npz": lambda target, people: embed_folder(MODEL, people, target),
    "pairs.bin": lambda target, people: convert_pairs(str(people), target),
    "recordio": lambda target, people: convert(str(people), target, "recordio"),
    "folder": lambda target, people: convert(str(people), target, "folder"),
    "parquet": lambda target, people: convert(str(people), target, "parquet"),
    "webdataset": lambda target, people: convert(str(people), target, "webdataset"),
    "aligned": lambda target, _: align_faces(SyntheticFaces(2, 2), target),
    "gallery": lambda target, _: export_gallery(target),
    "photo.jpg": lambda target, _: write_photo(target, PICTURE),
    "film.avi": lambda target, _: write_video(target),
    "samples.png": lambda target, _: write_png(target, PICTURE),
    "run": lambda target, _: make_run(target),
    "synthetic": lambda target, _: write_folder(SyntheticFaces(2, 2), target),
}
RESUMED = ("recordio", "folder", "parquet", "webdataset")  # by the same command


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


def refusal(write: Callable[[], object], limit: int) -> str:
    """The sentence that the command prints when no file may be larger than `limit` bytes."""
    with largest_file(limit), pytest.raises((InputError, OSError)) as raised:
        write()
    error = raised.value
    return str(error) if isinstance(error, InputError) else f"{error.filename}: {error.strerror}"


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_names_its_output_and_leaves_nothing(name: str, people: Path, tmp_path: Path) -> None:
    def write(target: Path) -> None:
        WRITERS[name](target, people)

    write(tmp_path / "whole" / name)
    largest = max(sizes(tmp_path / "whole"))
    for limit in (0, largest // 2, largest - 1):
        target = tmp_path / f"limit-{limit}" / name
        said = refusal(lambda target=target: write(target), limit)
        assert said.startswith(str(target)), said
        assert f"{target.parent}/." not in said
        assert "\n" not in said
        assert "too large" in said, said
        assert not target.exists() or name == "aligned"
        left = [path.name for path in target.parent.rglob("*") if path.is_file()]
        assert not left or name in RESUMED or (name == "aligned" and all(map(is_picture, target.rglob("*.png"))))
        write(target)  # room was made
        if name not in ("run", "parquet", "webdataset"):
            assert sorted(sizes(target.parent)) == sorted(sizes(tmp_path / "whole")), name
        if name in RESUMED:
            assert len(open_reader(target)) == len(open_reader(people))


def is_picture(path: Path) -> bool:
    return cv2.imread(str(path)) is not None


def test_a_torch_program_names_its_output_and_leaves_nothing(tmp_path: Path) -> None:
    """PyTorch writes in C++, and ends the process where it cannot."""
    target = tmp_path / "exported"
    assert refusal(lambda: export(MODEL, target, "pt2"), 30_000) == f"{target}: File too large"
    assert not list(tmp_path.iterdir())


def test_openvino_that_writes_no_more(tmp_path: Path) -> None:
    from marginface.export import openvino_ir

    openvino = pytest.importorskip("openvino")
    size = openvino.opset13.parameter([1, 100], np.float32)
    network = openvino.Model([openvino.opset13.matmul(size, np.ones((100, 100), np.float32), False, False)], [size])

    def write() -> None:
        with replace_folder(tmp_path / "out") as temporary:
            openvino_ir.save(network, temporary, {})

    assert refusal(write, 1000).startswith(f"{tmp_path / 'out'}: OpenVINO could not write it whole")
    assert not list(tmp_path.iterdir())


def test_embeddings_on_their_way_name_their_folder(people: Path, tmp_path: Path) -> None:
    files = sorted(people.rglob("*.jpg"))[:4]
    images = Images.of_files("a", [file.name for file in files], files, False)
    said = refusal(lambda: embed_to_disk(MODEL, images, tmp_path), 100)
    assert said.startswith(f"{tmp_path}/")
    embeddings, _ = embed_to_disk(MODEL, images, tmp_path)
    assert embeddings.original.shape == (4, 16)


def test_a_file_that_grows_keeps_its_rows(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.csv", ["step", "loss"], 0)
    metrics.write(1, {"loss": 0.5})
    size = (tmp_path / "metrics.csv").stat().st_size
    assert refusal(lambda: metrics.write(2, {"loss": 0.25}), size) == f"{tmp_path / 'metrics.csv'}: File too large"
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,loss", "1,0.5"]


@pytest.mark.parametrize("relative", [True, False])
def test_temporary_names_inside_are_not_said(relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = Path("out") if relative else tmp_path / "out"

    def write() -> None:
        with replace_folder(target) as temporary, replace_file(temporary / "deep" / "a.json") as file:
            file.write_text(json.dumps("a" * 2000))

    assert refusal(write, 1000) == f"{target}: File too large"
    assert not list(tmp_path.iterdir())


def test_what_is_read_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere") as raised, naming(tmp_path / "out"):
        (tmp_path / "nowhere").read_bytes()
    assert raised.value.filename == str(tmp_path / "nowhere")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of another operating system")
def test_a_full_stdout_is_named() -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "marginface", "margins"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "marginface: stdout: No space left on device; make room, or send the output elsewhere\n"
    assert done.returncode == 2


def test_a_nameless_error_of_the_command_is_not_stdouts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(margins, "run", refuse)
    with pytest.raises(SystemExit):
        cli.main(["margins"])
    assert capsys.readouterr().err == "marginface: a file: Input/output error; nothing was left half-written\n"
