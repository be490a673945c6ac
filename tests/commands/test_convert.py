"""`marginface convert`: words become a selection, an interruption is gone on with, mistakes are one sentence."""

import signal
from pathlib import Path

import numpy as np
import pytest

from marginface import cli
from marginface.commands import convert as command
from marginface.convert import convert
from marginface.readers import open_reader
from marginface.readers.verification import open_verification
from people import write_people


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Five people with two to six photographs."""
    for person, folder in enumerate(sorted(write_people(tmp_path / "faces", 5, 6, size=16).iterdir())):
        for image in sorted(folder.iterdir())[person + 2 :]:
            image.unlink()
    return tmp_path / "faces"


def fails(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    return int(end.value.code or 0)


def test_a_selection_in_every_format(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for to in ("folder", "recordio", "webdataset"):
        words = ["--min-images=3", "--identities=3", "--limit-per-identity=3"]
        cli.main(["convert", str(faces), str(tmp_path / to), f"--to={to}", *words])
        reader = open_reader(tmp_path / to)
        assert reader.labels.tolist() == np.repeat(range(3), 3).tolist()
        assert f"9 images in {tmp_path / to}" in capsys.readouterr().out.replace("\n", "")


def test_a_subset_of_keys(faces: Path, tmp_path: Path) -> None:
    keys = [record.key for record in open_reader(faces).read(range(4))]
    (tmp_path / "keep.txt").write_text("\n".join(keys))
    cli.main(["convert", str(faces), str(tmp_path / "kept"), "--to=folder", f"--subset={tmp_path / 'keep.txt'}"])
    assert [record.key for record in open_reader(tmp_path / "kept").read(range(4))] == keys


def test_pairs_for_bin(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_people(tmp_path / "many", 20, 2, size=16)
    cli.main(["convert", str(tmp_path / "many"), str(tmp_path / "faces.bin"), "--to=bin"])
    assert len(open_verification(tmp_path / "faces.bin").issame) > 0
    assert fails("convert", str(faces), str(tmp_path / "x.bin"), "--to=bin", "--min-images=2") == 2
    assert fails("convert", str(faces), str(tmp_path / "x"), "--to=folder", "--pairs=pairs.txt") == 2
    assert "--pairs: is for --to bin" in capsys.readouterr().err


def test_a_signal_stops_between_batches_and_the_same_command_goes_on(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> int:
        signal.raise_signal(signal.SIGTERM)
        return convert(*arguments)

    monkeypatch.setattr(command, "convert", interrupted)
    assert fails("convert", str(faces), str(tmp_path / "rec")) == 128 + signal.SIGTERM
    assert "go on with the same command" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("rec*")] == ["rec.partial"]
    monkeypatch.undo()
    cli.main(["convert", str(faces), str(tmp_path / "rec")])
    assert len(open_reader(tmp_path / "rec")) == len(open_reader(faces))


@pytest.mark.parametrize(
    "words", [["nowhere", "x"], ["faces", "x", "--to=zip"], ["faces", "faces"], ["faces", "x", "--workers=0"]]
)
def test_mistakes(faces: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fails("convert", *words) == 2
    assert not list(tmp_path.glob("x*"))
