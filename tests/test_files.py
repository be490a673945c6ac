"""Files are whole or absent, whatever happens while they are written."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from marginface import files
from marginface.files import MARKER, replace_file, replace_folder, temporary_folder


def fail_half_way(target: Path) -> None:
    with replace_file(target) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")


def fail_half_way_in_folder(target: Path) -> None:
    with replace_folder(target, overwrite=True) as temporary:
        (temporary / "new").write_text("new")
        raise OSError("disk full")


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with replace_file(tmp_path / "deep" / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert (tmp_path / "deep" / "a.txt").read_text() == "new"


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="full"):
        fail_half_way(target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_a_folder_replaces_one_that_is_not_empty(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with replace_folder(target) as temporary:
        (temporary / "old").write_text("old")
    with replace_folder(target, overwrite=True) as temporary:
        (temporary / "new").write_text("new")
    assert sorted(path.name for path in target.iterdir()) == [MARKER, "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_the_old_folder_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with replace_folder(target) as temporary:
        (temporary / "old").write_text("old")
    with pytest.raises(OSError, match="full"):
        fail_half_way_in_folder(target)
    assert sorted(path.name for path in target.iterdir()) == [MARKER, "old"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_usual_permissions(tmp_path: Path) -> None:
    with replace_file(tmp_path / "a") as temporary:
        temporary.write_text("x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def leave(folder: Path) -> Path:
    """The folder of a process that is killed while it fills it."""
    words = "import os, signal, sys, pathlib; from marginface.files import temporary_folder\n"
    words += "with temporary_folder(pathlib.Path(sys.argv[1])) as made:\n"
    words += "    (made / 'half').touch(); print(made, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", words, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return Path(done.stdout.strip())


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such locks")
def test_folders_of_killed_processes_go_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "set"
    left = leave(target)
    with temporary_folder(target):
        assert left.exists()  # a process that has just made one may not have locked it yet
    monkeypatch.setattr("marginface.files.JUST_MADE", -1.0)
    others = [
        tmp_path / name
        for name in (".set.marginface-thesis.tmp", ".set.x_3f5k2a.tmp", ".other.marginface-x_3f5k2a.tmp")
    ]
    for other in others:
        other.mkdir()
    (tmp_path / ".set.marginface-x_3f5k2a.tmp").symlink_to(others[0])
    (tmp_path / ".set.marginface-x_3f5k2b.tmp").touch()
    with temporary_folder(target) as used, temporary_folder(target) as also, replace_folder(target) as made:
        assert used.is_dir()
        assert also.is_dir()
        assert not left.exists()
        (made / "file").touch()
    assert sorted(tmp_path.iterdir()) == sorted(
        [target, *others, tmp_path / ".set.marginface-x_3f5k2a.tmp", tmp_path / ".set.marginface-x_3f5k2b.tmp"]
    )


def test_temporary_folders_are_made_in_one_place() -> None:
    """By which one that was left is known and removed."""
    source = Path(files.__file__).parent
    users = [str(path.relative_to(source)) for path in source.rglob("*.py") if "tempfile" in path.read_text("utf-8")]
    assert users == ["files.py"]
