"""Files and folders whose names are not UTF-8, as old disks and archives have them: each library takes them."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from marginface import cli
from marginface.commands import margins
from marginface.convert import convert, convert_pairs
from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.evaluate.folder import embed_folder
from marginface.export import export
from marginface.filenames import utf8_name
from marginface.readers import open_reader
from marginface.video.annotate import _writing, open_video
from marginface.weights.opening import load
from marginface.weights.state import SavedState, write_state
from people import write_people

NAME = os.fsdecode(b"caf\xe9")
MODEL = Embedder.create(ModelConfig("small", 16, {"width": 4}))
pytestmark = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of another operating system")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.mkdir()
    return path


@pytest.mark.parametrize("to", ["folder", "recordio", "webdataset", "parquet"])
def test_sets_are_written_and_read(to: str, folder: Path) -> None:
    write_people(folder.parent / "people", people=2, size=16).rename(folder / NAME)
    (folder / NAME / "p00").rename(folder / NAME / f"{NAME}-0")
    assert convert(str(folder / NAME), folder / f"{NAME}-{to}", to) == 8
    again = open_reader(folder / f"{NAME}-{to}")
    assert len(again) == 8
    assert len(again.read([0, 7])) == 2


def test_pairs_and_embeddings(folder: Path) -> None:
    write_people(folder.parent / "people", people=20).rename(folder / "people")
    assert convert_pairs(str(folder / "people"), folder / f"{NAME}.bin") > 0
    assert embed_folder(MODEL, folder / "people", folder / f"{NAME}.npz") == 80


def test_a_model_and_its_weights(folder: Path) -> None:
    MODEL.save(folder / NAME)
    again = load(folder / NAME)
    export(again, folder / f"{NAME}.safetensors", "safetensors")
    faces = np.zeros((1, 112, 112, 3), np.uint8)
    np.testing.assert_allclose(again.embed(faces), MODEL.embed(faces), atol=1e-6)


def test_a_checkpoint(folder: Path) -> None:
    write_state(folder / "state-3", {"w": torch.arange(4.0)}, {"step": 3})
    read = torch.zeros(4)
    SavedState.open(folder / "state-3").read({"w": read})
    assert read.tolist() == [0, 1, 2, 3]


def test_a_video(folder: Path) -> None:
    """OpenCV would end the process."""
    (folder / f"{NAME}.mp4").write_bytes(bytes(1000))
    with pytest.raises(InputError, match="the video cannot be opened"):
        open_video(str(folder / f"{NAME}.mp4"))
    with (
        pytest.raises(InputError, match="is not a name in UTF-8"),
        _writing(str(folder / "a.avi"), 25, False, "") as film,
    ):
        film.write(np.zeros((48, 64, 3), np.uint8))
    assert [path.name for path in folder.iterdir()] == [f"{NAME}.mp4"]


def test_a_name_for_libraries(folder: Path) -> None:
    (folder / NAME).write_text("a")
    with utf8_name(folder / NAME) as name:
        assert name.isascii()
        assert Path(name).read_text() == "a"
    (folder.parent / "ü").touch()
    with utf8_name(folder.parent / "ü") as name:
        assert name == str(folder.parent / "ü")


def test_a_library_that_takes_none_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(margins, "run", lambda *_: f"{NAME}/model.xml".encode())
    with pytest.raises(SystemExit) as end:
        cli.main(["margins"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("marginface: caf\\xe9/model.xml: this name is not UTF-8")
