"""Validation data: looked at before the first step, of every kind, and never a reason to lose what was learned."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marginface import cli
from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate import open_benchmark
from marginface.evaluate.measure import figure_during_training
from marginface.evaluate.pairs import PairsBenchmark
from marginface.protocols.closed_set import ClosedSet
from marginface.training import finish
from marginface.training.status import read_status
from marginface.weights.state import list_states
from people import write_people

TINY = [
    "train", "--model.backbone=small", "--model.num_features=16", "--model.options.width=4", "--data.batch_size=12",
    "--train.epochs=2", "--train.eval_every=2", "--trainer.accelerator=cpu", "--name=run",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_people(tmp_path / "people", people=6)
    write_people(tmp_path / "others", people=5, seed=1)
    return tmp_path


def words(folder: Path, *val: str) -> list[str]:
    return [*TINY, f"--output={folder}", f"--data.train={folder / 'people'}", f"--data.val=[{','.join(val)}]"]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", ["pairs:", "closedset:", ""])
def test_a_picture_that_cannot_be_read_is_named_before_the_run_is_made(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = folder / "others" / "p03" / "p03_0004.jpg"
    broken.write_bytes(broken.read_bytes()[:700])
    said = refused(words(folder, f"{kind}{folder / 'others'}"), capsys)
    assert "others" in said
    assert "p03_0004.jpg" in said
    assert "cannot be read" in said
    assert not (folder / "run").exists()


def test_a_picture_of_another_size_is_named(folder: Path) -> None:
    write_people(folder / "small", people=3, size=96)
    with pytest.raises(InputError, match=r"p00_0001\.jpg: the image is 96×96 pixels, not 112×112"):
        figure_during_training(open_benchmark(f"closedset:{folder / 'small'}"), 112)


def fail(*_: Any, **__: Any) -> Any:
    raise ValueError("need at least one array to concatenate")


def test_what_cannot_be_scored_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClosedSet, "score", fail)
    with pytest.raises(InputError, match=r"others closed set cannot be measured: ValueError.*need at least one array"):
        figure_during_training(open_benchmark(f"closedset:{folder / 'others'}"), 112)


def test_two_of_one_name_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / "others", folder / "b" / "others")
    said = refused(words(folder, str(folder / "others"), str(folder / "b" / "others")), capsys)
    assert "two benchmarks are called others" in said


def test_a_search_is_followed_by_its_best_f1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(words(folder, f"closedset:{folder / 'others'}", f"pairs:{folder / 'others'}"))
    said = " ".join(capsys.readouterr().out.split())
    assert "best pair F1 on unseen people: others closed set 0." in said
    assert "accuracy on unseen people: others 0." in said
    header, *rows = (folder / "run" / "metrics.csv").read_text().splitlines()
    assert header.endswith("others closed set_best_pair_F1,others_accuracy")
    assert read_status(str(folder / "run")).best_accuracy is not None
    results = json.loads((folder / "run" / "metrics.json").read_text())["results"]
    assert {result["benchmark"] for result in results} == {"others closed set", "others"}
    last = next(row.split(",")[-2:] for row in reversed(rows) if row.split(",")[-1])
    own = next(one for one in results if "figures" in one and one["model"] == "trained network")
    assert float(last[0]) == pytest.approx(own["figures"]["best pair F1"], abs=1e-5)


def raising(original: Callable[..., Any], at: int) -> Callable[..., Any]:
    calls = iter(range(1, 1000))

    def score(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= at:
            fail()
        return original(*arguments, **options)

    return score


@pytest.mark.parametrize(
    ("place", "name", "at", "step"),
    [
        (PairsBenchmark, "score", 2, 2),  # the second is of the first evaluation, the first of random embeddings
        (PairsBenchmark, "score", 3, 4),
        (finish, "publish", 1, 4),
    ],
)
def test_what_fails_all_the_same_leaves_state_and_model(
    place: Any,
    name: str,
    at: int,
    step: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = words(folder, str(folder / "others"))
    with monkeypatch.context() as patch:
        patch.setattr(place, name, raising(getattr(place, name), at))
        with pytest.raises((ValueError, SystemExit)):
            cli.main(given)
        said = " ".join("".join(capsys.readouterr()).split())
        assert step == 2 or "need at least one array to concatenate; the model is in" in said
    assert list_states(folder / "run" / "checkpoints")[0].name == f"state-{step}"
    assert (folder / "run" / "model").is_dir() == (step == 4)
    monkeypatch.setattr(place, name, raising(getattr(place, name), min(at, 2)))
    cli.main(["train", f"--resume={folder / 'run'}"])
    said = " ".join(capsys.readouterr().out.split())
    assert "is left out: ValueError: need at least one array to concatenate" in said
    assert Embedder.load(folder / "run" / "model").config.num_features == 16


def test_a_resumed_run_gets_past_what_is_gone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(words(folder, str(folder / "others"), f"closedset:{folder / 'others'}", f"pairs:{folder / 'people'}"))
    shutil.rmtree(folder / "others")
    cli.main(["train", f"--resume={folder / 'run'}", "--train.epochs=3"])
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("is left out:") == 2
    assert "accuracy on unseen people: people" in said
    assert read_status(str(folder / "run")).step == 6
