"""Files are whole or absent, whatever happens while they are written."""

from pathlib import Path

import pytest

from marginface.files import MARKER, replace_file, replace_folder


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
