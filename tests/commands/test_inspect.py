"""`marginface inspect`: table, JSON, page and clean list of one call."""

import json
import shutil
from pathlib import Path

import pytest

from marginface import cli
from people import write_people


def test_everything_that_is_asked_for_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_people(tmp_path / "faces", 2, 3, size=24)
    write_people(tmp_path / "bench", 3, 2, size=24, seed=1)
    (tmp_path / "bench" / "p00").rename(tmp_path / "bench" / "someone")
    shutil.copy(tmp_path / "faces/p00/p00_0001.jpg", tmp_path / "faces/p01/stolen.jpg")
    files = {name: tmp_path / name for name in ("found.json", "found.html", "clean.txt")}
    outputs = [f"--json={files['found.json']}", f"--html={files['found.html']}", f"--write-clean={files['clean.txt']}"]
    cli.main(["inspect", str(tmp_path / "faces"), "--benchmark", str(tmp_path / "bench"), *outputs])
    found = json.loads(files["found.json"].read_text())
    assert found["images"] == 7
    assert len(found["same_bytes"]["across_identities"]) == 1
    assert found["overlaps"][0]["names"] == ["p01"]
    assert found["clean"] == len(files["clean.txt"].read_text().splitlines())
    assert "data:image/jpeg" in files["found.html"].read_text()
    assert "identities" in capsys.readouterr().out


def test_what_is_no_set_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_bytes(b"\0\1\2")
    with pytest.raises(SystemExit) as end:
        cli.main(["inspect", str(tmp_path / "x")])
    assert end.value.code == 2
    assert "not a data set" in capsys.readouterr().err
