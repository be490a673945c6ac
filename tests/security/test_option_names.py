"""A name from a configuration or an option never leads out of the folder that it is used below."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation_case import refused, save_model, write_stored
from marginface import cli
from marginface.align import align_faces
from marginface.errors import InputError
from marginface.faces.template import ARCFACE_112
from marginface.readers.base import Record
from marginface.readers.synthetic import write_folder
from marginface.training.config import Config
from marginface.training.run import Run, create_run
from people import write_people

ESCAPES = [
    "../../escape",
    "/tmp/marginface-escape",
    "..",
    "a/../../escape",
    "a/b",
    ".hidden",
    "-rf",
    "a\\b",
    "~",
    "a\nb",
]
KEYS = [
    "../../escape.png",
    "/tmp/marginface-escape.png",
    "..",
    ".",
    "",
    "a/../../escape.png",
    "a\0b.png",
    "\\..\\..\\e.png",
]


class Keyed:
    """A set whose keys are hostile; images are arrays of one colour."""

    def __init__(self, keys: list[str]) -> None:
        self.keys, self.labels, self.num_classes = keys, np.arange(len(keys)), len(keys)

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, indices: "range | list[int]") -> list[Record]:
        image = np.zeros((112, 112, 3), np.uint8)
        return [Record(image + index, index, self.keys[index], ARCFACE_112.astype(np.float32)) for index in indices]


def files_below(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ESCAPES)
def test_the_name_of_a_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(json.dumps({"name": name, "output": str(tmp_path / "deep" / "runs")}))
    before = files_below(tmp_path)
    assert "give the name of one folder" in refused(["train", "--config", "quickstart", "--config=mine.yaml"], capsys)
    for resume in ("", "--resume=auto"):
        assert "give the name of one folder" in refused(["train", f"--name={name}", *filter(None, [resume])], capsys)
    with pytest.raises(InputError, match="give the name of one folder"):
        Config(name=name)
    with pytest.raises(InputError, match="give the name of one folder"):
        create_run(str(tmp_path / "runs"), name, True, lambda run: run.config.write_text("x"))
    assert files_below(tmp_path) == before


def test_the_name_of_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes part of a file's name where one is written per benchmark."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model")
    people = write_people(tmp_path / "people", people=20)
    write_stored(tmp_path / "a:*?<b>.bin", people)
    write_stored(tmp_path / "c.bin", people)
    cli.main(["evaluate", "model", "--benchmark", "a:*?<b>.bin", "c.bin", "--report=", "--roc-file=out/roc.txt"])
    assert files_below(tmp_path / "out") == {Path("roc-a____b_.txt"), Path("roc-c.txt")}


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_a_set_that_is_written_as_a_folder(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its name leads out of the folder"):
        write_folder(Keyed([key]), tmp_path / "deep" / "out")
    assert not files_below(tmp_path)


def test_names_with_dots_are_kept(tmp_path: Path) -> None:
    assert align_faces(Keyed(["p/1.png", "p/A.J. Cook", "p/2.jpg"]), tmp_path).written == 3
    assert files_below(tmp_path) == {Path(".alignment.json"), Path("p/1.png"), Path("p/A.J. Cook.png"), Path("p/2.png")}


def test_a_link_in_the_folder_of_aligned_faces_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "aligned").mkdir()
    (tmp_path / "aligned" / "p").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="its name leads out of the folder"):
        align_faces(Keyed(["p/1.png"]), tmp_path / "aligned")
    assert not list((tmp_path / "precious").iterdir())


def test_every_place_of_a_run_is_in_its_folder() -> None:
    run = Run(Path("/runs/a"))
    places = [getattr(run, name) for name, value in vars(Run).items() if isinstance(value, property)]
    assert all(place.is_relative_to("/runs/a") for place in [*places, run.model_of(3), run.state_of(3)])
