"""`marginface compare`: from stored scores or on a benchmark, and runs that cannot be compared."""

import json
from pathlib import Path

import pytest

from evaluation_case import refused, save_model, write_people, write_stored
from marginface import cli


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs that were evaluated on one set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_stored(tmp_path / "set.bin", write_people(tmp_path / "people", people=8), pairs=40)
    for seed, name in enumerate("ab"):
        save_model(tmp_path / name / "model", seed)
        cli.main(["evaluate", name, "--benchmark", "set.bin", f"--json={name}/metrics.json", "--report="])
    return tmp_path


def test_stored_scores_and_measured_anew_agree(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["compare", "a", "b", "--json=stored.json"])
    assert "McNemar" in capsys.readouterr().out
    assert "Models compared" in (runs / "compare.html").read_text()
    cli.main(["compare", "a", "b", "--benchmark", "set.bin", "--json=anew.json", "--report="])
    stored, anew = (json.loads((runs / name).read_text()) for name in ("stored.json", "anew.json"))
    assert stored["results"] == anew["results"]
    assert stored["comparisons"] == anew["comparisons"]
    (found,) = stored["comparisons"]
    assert (found["first"], found["second"], found["benchmark"]) == ("a", "b", "set")
    means = [row["auc"]["value"] for row in stored["results"]]
    assert found["differences"]["auc"][0] == pytest.approx(means[1] - means[0])


def test_what_cannot_be_compared(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give at least two different runs" in refused(["compare", "a"], capsys)
    assert "give at least two different runs" in refused(["compare", "a", "a"], capsys)
    words = ["compare", "a", "b", "--benchmark", "closedset:people"]
    assert "people closed set is not made of pairs with folds" in refused(words, capsys)
    assert "c/metrics.json does not exist: give a run" in refused(["compare", "a", "c/metrics.json"], capsys)
    cli.main(["evaluate", "b", "--benchmark", "pairs:people", "--json=b/metrics.json", "--report=", "--overwrite"])
    assert "no benchmark was measured on all of them (a: set; b: people)" in refused(["compare", "a", "b"], capsys)
    (runs / "b" / "metrics.scores.npz").unlink()
    assert "evaluate again with `marginface evaluate ... --json b/metrics.json`" in refused(
        ["compare", "a", "b"], capsys
    )
    assert not (runs / "compare.html").exists()


def test_the_same_name_but_other_pairs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "set.bin").unlink()
    write_stored(runs / "set.bin", runs / "people", pairs=36)
    cli.main(["evaluate", "b", "--benchmark", "set.bin", "--json=b/metrics.json", "--report=", "--overwrite"])
    assert "were not measured on the same pairs" in refused(["compare", "a", "b"], capsys)
