"""`marginface threshold`: the advice, where it is stored, and FARs that the pairs cannot support."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation_case import refused, save_model, write_people, write_stored
from marginface import cli
from marginface.embedder import Embedder
from marginface.evaluate import open_benchmark
from marginface.evaluate.embeddings import embed_images


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    people = write_people(tmp_path / "people", people=8)
    write_stored(tmp_path / "set.bin", people, pairs=80)
    save_model(tmp_path / "run" / "model")
    words = ["--benchmark", "set.bin", "pairs:people", "--json=run/metrics.json", "--report="]
    cli.main(["evaluate", "run", *words])
    return tmp_path / "run"


def test_advice_is_stored_with_the_runs_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((run / "model" / "config.json").read_text())
    weights = (run / "model" / "model.safetensors").read_bytes()
    cli.main(["threshold", "run", "--far=0.1", "--benchmark=set"])
    model = Embedder.load(run / "model")
    (advice,) = model.notes["threshold"]
    assert f"similarity of {advice['threshold']:.4f} or more" in capsys.readouterr().out
    (result,) = open_benchmark("set.bin").score(embed_images(model, open_benchmark("set.bin").images), "m", 0)
    impostors = np.sort(result.scores[~result.trials.same])
    assert np.mean(impostors >= advice["threshold"]) == advice["measured"] <= 0.1
    assert (advice["far"], advice["benchmark"], advice["impostors"]) == (0.1, "set", 40)
    after = json.loads((run / "model" / "config.json").read_text())
    assert after.pop("notes") == {**before.pop("notes"), "threshold": [advice]}
    assert after == before
    assert (run / "model" / "model.safetensors").read_bytes() == weights


def test_a_result_file_and_a_model_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(run.parent / "other")
    cli.main(["threshold", "run/metrics.json", "--far=0.2", "--benchmark=set"])
    assert "not stored: give the model's folder" in capsys.readouterr().out
    cli.main(["threshold", "run/metrics.json", "--far=0.2", "--benchmark=set", "--model=other"])
    for far in ("0.1", "0.2"):
        cli.main(["threshold", "run/metrics.json", f"--far={far}", "--benchmark=set", "--model=other"])
    assert [one["far"] for one in Embedder.load("other").notes["threshold"]] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "--far=1e-4", "--benchmark=set"],
            "FAR 0.0001 on set needs at least 10,000 different pairs, there are 40",
        ),
        (["run", "--far=0.1"], "holds several benchmarks, choose one with --benchmark: set, people"),
        (["run", "--far=0.1", "--benchmark=lfw"], "has no ROC of lfw; it has set, people"),
        (["run", "--far=2", "--benchmark=set"], "--far is 2: give a number that is above 0 and at most 1"),
        (["nowhere", "--far=0.1"], "nowhere does not exist: give a run"),
        (
            ["run/metrics.json", "--far=0.1", "--benchmark=set", "--model=people"],
            "people/config.json is not a marginface",
        ),
    ],
)
def test_what_cannot_be_advised(run: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert message in refused(["threshold", *words], capsys)
    assert "threshold" not in Embedder.load(run / "model").notes


def test_damaged_results(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("", "[]", '{"results": 3}', '{"results": [3]}', '{"results": [{"roc": 3}]}'):
        (run / "metrics.json").write_text(text)
        assert "metrics.json holds no results" in refused(["threshold", "run", "--far=0.1"], capsys)
