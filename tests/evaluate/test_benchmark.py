"""Which file a benchmark means: the one that was named, else the one in its folder, never a stray one nearby."""

from pathlib import Path

import pytest

from marginface.evaluate.benchmark import beside


def test_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("set")
    folder.mkdir()
    for path in (Path("pairs.txt"), Path("mine.txt"), folder / "other.txt"):
        path.touch()
    assert beside(folder, None, "pairs.txt") == folder / "pairs.txt"  # not ./pairs.txt, though it exists
    assert beside(folder, "mine.txt", "pairs.txt") == Path("mine.txt")
    assert beside(folder, "other.txt", "pairs.txt") == folder / "other.txt"
