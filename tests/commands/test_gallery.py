"""The words of `marginface gallery`, before a photograph is opened."""

from pathlib import Path

import pytest
from jsonargparse import Namespace

from marginface import cli
from marginface.commands import gallery


@pytest.mark.parametrize("action", ["list", "info"])
def test_a_word_that_would_be_ignored_is_refused(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["gallery", action, "other.db"])
    assert ended.value.code == 2
    assert f"gallery {action} takes no 'other.db'; name the gallery by --gallery" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["", "."])
def test_a_person_is_the_first_folder_as_in_data_sets(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Ann/1.jpg", "Ann/2021/2.jpg", "Ann/2022/May/3.jpg", "Bob/2021/4.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    options = Namespace(words=[below or str(tmp_path)], name="", allow_outside=False)
    assert sorted(name for name, _ in gallery._photos(options)) == ["Ann", "Ann", "Ann", "Bob"]
