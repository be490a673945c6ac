"""`marginface compare`: from stored scores or on a benchmark, and runs that cannot be compared."""

import json
from pathlib import Path

import pytest

from evaluation_case import refused, save_model, write_people, write_stored
from ijb_set import write_ijb
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


def test_models_on_closed_sets_and_degraded_images(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VN-Celeb's table: one row a model, the sets side by side, the difference below."""
    words = ["compare", "a", "b", "--benchmark", "closedset:people", "set.bin", "--degrade", "blur:3", "jpeg:20"]
    cli.main([*words, "--json=anew.json"])
    told = capsys.readouterr().out
    table = told[told.index("Best F1 of pairs on people closed set") :].splitlines()
    assert " ".join(table[2].split()) == "Model as they are at cosine blur:3 at cosine jpeg:20 at cosine"
    assert [line.split("  ")[0].strip() for line in table[4::2][:3]] == ["a", "b", "b − a"]
    content = json.loads((runs / "anew.json").read_text())
    conditions = [f"{name}{spec}" for name in ("people closed set", "set") for spec in ("", ", blur:3", ", jpeg:20")]
    assert [(row["benchmark"], row["model"]) for row in content["results"]] == [
        (name, model) for name in conditions for model in "ab"
    ]
    assert [row["benchmark"] for row in content["comparisons"]] == conditions
    page = (runs / "compare.html").read_text()
    assert all(name in page for name in conditions)
    cli.main(["evaluate", "b", "--benchmark", "closedset:people", "--degrade=blur:3", "--json=b.json", "--report="])
    blurred, clear = json.loads((runs / "b.json").read_text())["results"]
    for found, one in ((clear, 1), (blurred, 3)):
        assert found["figures"] == pytest.approx(content["results"][one]["figures"], abs=1e-6)
        low, high = found["intervals"]["best pair F1"]
        assert 0 < low <= high <= 1
    difference = content["comparisons"][0]["differences"]["best F1"][0]
    figures = [row["figures"]["best pair F1"] for row in content["results"][:2]]
    assert difference == pytest.approx(figures[1] - figures[0])


def test_what_cannot_be_compared(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give at least two different runs" in refused(["compare", "a"], capsys)
    assert "give at least two different runs" in refused(["compare", "a", "a"], capsys)
    write_ijb(runs / "IJBC")
    words = ["compare", "a", "b", "--benchmark", "ijbc:IJBC"]
    assert "IJBC is made neither of pairs with folds nor of a closed set" in refused(words, capsys)
    assert "--degrade measures models: give --benchmark" in refused(["compare", "a", "b", "--degrade=blur:3"], capsys)
    words = ["compare", "a", "b", "--benchmark", "set.bin", "--degrade", "haze:3"]
    assert "degradation 'haze:3' is not understood" in refused(words, capsys)
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
