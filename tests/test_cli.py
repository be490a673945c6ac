"""The command line: what stands later wins, a typo is answered with what is valid, bad input is exit code 2."""

import importlib
import json
import re
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

from marginface import cli
from marginface.commands import COMMANDS, backbones, margins, train
from marginface.files import replace_folder
from marginface.training import start
from marginface.training.config import Config, recipe_rows
from people import write_people

TINY = ["--model.backbone=small", "--model.options.width=4", "--model.num_features=16", "--train.epochs=1"]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    return int(end.value.code or 0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command leaves behind by default is left in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Configurations that would have been trained."""
    configs: list[Config] = []
    monkeypatch.setattr(train, "start_training", lambda config, **_: configs.append(config))
    return configs


def trained(started: list[Config], *words: str) -> Config:
    cli.main(["train", *words])
    return started[-1]


def test_later_wins_files_included(started: list[Config], tmp_path: Path) -> None:
    file, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    file.write_text("data: {batch_size: 64}\nmargin: {name: cosface, options: {m: 0.35, s: 30}}\n")
    other.write_text("data: {batch_size: 32}\n")
    assert trained(started, "--data.batch_size", "16", "--config", str(file)).data.batch_size == 64
    assert trained(started, "--config", str(file), "--data.batch_size", "16").data.batch_size == 16
    assert trained(started, "--config", str(file), f"--config={other}").data.batch_size == 32
    config = trained(started, "--config", str(file), "--margin.options.m", "0.2", "--config", str(other))
    assert (config.margin.name, config.margin.options) == ("cosface", {"m": 0.2, "s": 30})
    assert config.data.batch_size == 32


def test_without_arguments_the_quickstart(started: list[Config]) -> None:
    assert trained(started).name == "quickstart"
    assert trained(started, "--config", "quickstart") == trained(started)


def test_print_config_prints_what_gives_the_same_run(
    started: list[Config], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("train", "--data.batch_size=77", "--print_config") == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert trained(started, f"--config={tmp_path / 'printed.yaml'}") == trained(started, "--data.batch_size=77")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.batchsize=3"], r"no --data\.batchsize; did you mean --data\.batch_size.*data\.workers"),
        (["--optim.foo", "3"], r"no --optim\.foo; .*optim\.lr"),
        (["--nonsense", "3"], r"no --nonsense; .*margin"),
        (["--data.batch_size=many"], r"data\.batch_size is many: give a whole number"),
        (["--config=nowhere.yaml"], r"nowhere\.yaml: neither a file nor a recipe; the recipes are .*quickstart"),
        (["--data.workers=0"], r"data\.workers is 0"),
        (["--resume=nowhere"], r"nowhere"),
        (["--data.train=nowhere"], r"nowhere"),
        (["--model.backbone=resnet"], r"resnet.*iresnet50"),
        (["--margin.name=arcfase"], r"arcfase.*arcface"),
        (["--margin.options.margin=1"], r"margin.*m"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("train", *words) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_keys_of_a_file_are_checked_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {batchsize: 3}\n")
    assert run("train", f"--config={tmp_path / 'a.yaml'}") == 2
    assert "no --data.batchsize; did you mean --data.batch_size" in capsys.readouterr().err


def test_every_recipe_has_its_name_and_line() -> None:
    """That each is a valid configuration, tests/training/test_recipes.py shows."""
    for name, content in recipe_rows():
        assert content["name"] == name
        assert content["summary"].count("|") >= 2
        assert content["expect"]


@pytest.mark.parametrize("name", ["lfw-scratch", "finetune"])  # not among those
def test_recipes_of_our_own_are_valid(name: str, started: list[Config]) -> None:
    assert trained(started, "--config", name).name == name


def test_train_evaluate_embed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = write_people(tmp_path / "people")
    words = ["train", f"--data.train={people}", f"--data.val=[{people}]", "--data.batch_size=16", *TINY]
    cli.main([*words, "--name=a"])
    run_folder = tmp_path / "runs" / "a"
    files = {path.name for path in run_folder.iterdir()}
    assert files == {
        "checkpoints", "config.yaml", "metrics.csv", "metrics.json", "metrics.scores.npz", "model",
        "progress.json", "report.html", "samples.png", "tensorboard",
    }  # fmt: skip
    results = json.loads((run_folder / "metrics.json").read_text())["results"]
    assert [row["model"] for row in results] == ["pixels", "untrained network", "trained network"]
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["data"]["batch_size"] == 16

    assert run(*words, "--name=a") == 2  # never overwritten
    assert "exists already" in capsys.readouterr().err

    cli.main(["evaluate", "runs/a", "--benchmark", f"pairs:{people}", "--json=r.json", "--report=r.html"])
    (row,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert row["accuracy"]["mean"] == results[2]["accuracy"]["mean"]
    assert "<script src" not in (tmp_path / "r.html").read_text()

    cli.main(["embed", "runs/a/model", str(people), "-o", "emb.npz"])
    with np.load(tmp_path / "emb.npz", allow_pickle=False) as file:
        assert file["embeddings"].shape == (96, 16)
        np.testing.assert_allclose(np.linalg.norm(file["embeddings"], axis=1), 1, atol=1e-6)
        assert file["keys"][0] == "p00/p00_0001.jpg"


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = write_people(tmp_path / "people")
    words = [f"--data.train={people}", "--data.val=[]", "--data.batch_size=16", f"--output={tmp_path / 'runs'}", *TINY]
    assert run("train", *words, "--optim.lr=1e38", "--optim.warmup_epochs=0", "--optim.clip_norm=0") == 2
    error = capsys.readouterr().err
    assert re.search(r"not finite at step \d+; .*the batch began with p\d\d/p\d\d_\d{4}\.jpg.*--optim\.lr", error), (
        error
    )


def test_lists_print(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(backbones, "list_backbones", lambda: ["mobilefacenet", "small"])  # all take more than a minute
    for word, expected in (("recipes", "quickstart"), ("backbones", "mobilefacenet"), ("margins", "adaface")):
        cli.main([word])
        assert expected in capsys.readouterr().out


def test_no_library_is_loaded_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's cuSPARSELt looks there for libcuda.so.1, and torch loads it when it is imported."""
    folders: list[Path] = []

    def recorded(name: str) -> ModuleType:
        folders.append(Path.cwd())
        return importlib.import_module(name)

    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=recorded))
    monkeypatch.setattr(sys, "argv", ["marginface", "margins"])
    cli.main()
    assert folders == [Path(sys.prefix).resolve()]
    assert Path.cwd() == tmp_path
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(cli, "importlib", importlib)
    cli.main()  # a folder that was removed holds nothing to load


def test_asked_to_end_a_command_tidies_up(tmp_path: Path) -> None:
    def work(number: int) -> None:
        with cli._orderly_exit(), replace_folder(tmp_path / "out") as temporary:
            (temporary / "a").write_text("a")
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(number)  # as launchers do, which pass on what the terminal said already

    for number in (signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(SystemExit) as stopped:
            work(number)
        assert stopped.value.code == 128 + number
        assert list(tmp_path.iterdir()) == []
        assert signal.getsignal(number) is signal.SIG_DFL


def test_asked_again_later_a_command_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    monkeypatch.setattr(cli, "ECHO", -1.0)
    with cli._orderly_exit():
        leave = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit):
            leave(signal.SIGTERM, None)
        monkeypatch.setattr(signal, "raise_signal", raised.append)
        leave(signal.SIGTERM, None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert raised == [signal.SIGTERM]


def test_nohup_holds() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._orderly_exit():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_train_help_has_what_people_use_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--config", "nowhere", "--help") == 0
    short = capsys.readouterr().out
    assert run("train", "--help", "all") == 0
    full = capsys.readouterr().out
    assert all(f"--{name} " in short for name in train.FIRST)
    assert "--optim.momentum" in full
    assert "--optim.momentum" not in short
    assert len(short.splitlines()) < 100 < len(full.splitlines())


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_help_shows_no_python(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    assert not re.search(r"<\w+|0x[0-9a-f]{6}", capsys.readouterr().out)


def test_streams_of_another_program_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr, sys.stdout.errors
    cli.main(["margins"])
    assert (sys.stdout, sys.stderr, sys.stdout.errors) == before


def test_a_reader_that_has_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(margins, "run", broken)
    assert run("margins") == 141
    assert capsys.readouterr() == ("", "")


def test_interrupted_in_the_last_evaluation_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    people = write_people(tmp_path / "people")
    words = [f"--data.train={people}", "--data.val=[]", "--data.batch_size=16", "--name=a", *TINY]
    for number in (signal.SIGINT, signal.SIGTERM):
        monkeypatch.setattr(start, "finish", lambda *_, number=number: signal.raise_signal(number))
        assert run("train", *words, "--resume=auto") == 128 + number
        assert "go on with: marginface train --resume runs/a" in capsys.readouterr().err
