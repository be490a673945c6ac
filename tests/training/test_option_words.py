"""Words behind `marginface train` that depend on each other, on lists, or on another tool's habits."""

import itertools
import re
import shlex
from pathlib import Path

import pytest

from marginface import cli
from marginface.commands import train
from marginface.margins import list_margins
from marginface.training.config import Config, recipe_rows

IRESNET = {"dropout": 0.4, "channel_dropout": True, "bn_eps": 2e-05, "bn_momentum": 0.9, "init": "kaiming"}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Configurations that would have been trained."""
    configs: list[Config] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "start_training", lambda config, **_: configs.append(config))
    return configs


def parsed(words: str, trained: list[Config]) -> Config:
    cli.main(["train", *shlex.split(words)])
    return trained[-1]


def refused(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit:
        cli.main(["train", *shlex.split(words)])
    assert exit.value.code == 2
    told = capsys.readouterr().err.removesuffix("\n")
    assert "\n" not in told
    return told


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--config openvino-mobilefacenet-cos-sv --margin.name arcface", {}),
        ("--config=openvino-mobilefacenet-cos-sv --margin.name=arcface --margin.options.m 0.3", {"m": 0.3}),
        ("--config openvino-mobilefacenet-cos-sv --margin '{name: arcface}'", {}),
        ("--config openvino-mobilefacenet-cos-sv --margin.options.m 0.3 --margin.name arcface", {"m": 0.3}),
        ("--margin.name adaface --config openvino-mobilefacenet-cos-focal", {"s": 30.0, "m": 0.35}),
        ("--config openvino-mobilefacenet-cos-focal --margin.name cosface", {"s": 30.0, "m": 0.35}),
        ("--config elasticface-arc-casia --config adaface.yaml", {}),
        ("--config elasticface-arc-casia --config adaface.yaml --margin.options.h 0.2", {"h": 0.2}),
        ("--config elasticface-arc-casia --margin.name adaface --margin.options '{h: 0.3}'", {"h": 0.3}),
    ],
)
def test_options_of_another_margin_are_left_out(words: str, options: dict[str, float], trained: list[Config]) -> None:
    Path("adaface.yaml").write_text("margin.name: adaface")
    assert parsed(words, trained).margin.options == options


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("--data.train people --config quickstart", "--data.train people"),
        ("--data.train=people --seed 3 --config=own.yaml --config=quickstart", "--data.train people"),
        ("--train.epochs 3 --config quickstart", "--train.epochs 3"),
        ("--data.val a.bin --config quickstart", '--data.val ["a.bin"]'),
        ("--data.augment.flip 0.1 --config own.yaml", "--data.augment.flip 0.1"),
        ("--seed 4 --config own.yaml", "--seed 4"),
    ],
)
def test_an_option_that_a_later_config_replaces_is_named(
    words: str, name: str, trained: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.yaml").write_text("seed: 3\ndata: {augment: {flip: 0.2}}")
    parsed(words, trained)
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(f"{name} has no effect: --config ")
    assert told.endswith("; put --config first")
    assert told.count("no effect") == 1


@pytest.mark.parametrize(
    "words",
    [
        *(
            "--seed 3 --config own.yaml",
            "--optim.lr 1e-3 --config own.yaml",
            "--data.val a.bin b.bin --config own.yaml",
        ),
        *("--data.size 96 --config own.yaml", "--config own.yaml --seed 4", "--config quickstart --config own.yaml"),
    ],
)
def test_nothing_is_said_of_options_that_count(
    words: str, trained: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.yaml").write_text("seed: 3\noptim: {lr: 1e-3}\ndata: {val: [a.bin, b.bin]}")
    parsed(words, trained)
    assert not capsys.readouterr().err


def test_every_recipe_and_every_margin() -> None:
    for (recipe, content), name in zip(recipe_rows(), itertools.cycle(list_margins()), strict=False):
        own = content["margin"]
        words = train.prepared(["--config", recipe, f"--margin.name={name}"])
        reset = ["--margin.options={}"] if own.get("options") and name != own["name"] else []
        assert words[1:] == [*reset, f"--margin.name={name}"]


@pytest.mark.parametrize(
    ("backbone", "options"), [("iresnet100", IRESNET), ("ir50", {}), ("timm:resnet18", {}), ("iresnet50", IRESNET)]
)
def test_options_of_another_backbone_are_left_out(
    backbone: str, options: dict[str, object], trained: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    config = parsed(f"--config femb-linear-casia --model.backbone {backbone}", trained)
    assert config.model.options == options
    told = "" if options else f"model.options of iresnet50 are left out ({', '.join(IRESNET)}): "
    assert capsys.readouterr().err.startswith(told)


@pytest.mark.parametrize(
    ("words", "val"),
    [
        ("--data.val pairs:X", ["pairs:X"]),
        ("--data.val=pairs:X,pairs=Y", ["pairs:X,pairs=Y"]),
        ("--data.val a.bin 'pairs:b c' --seed 3", ["a.bin", "pairs:b c"]),
        ("--data.val '[pairs:X, lfw.bin]'", ["pairs:X", "lfw.bin"]),
        ("--data.val=[]", []),
        ("--data.val 007", ["007"]),
    ],
)
def test_benchmarks_without_brackets(words: str, val: list[str], trained: list[Config]) -> None:
    assert parsed(words, trained).data.val == val


@pytest.mark.parametrize("words", ["12,20,24", "12 20 24", "[12,20,24]", "'[12, 20, 24]'"])
def test_numbers_without_brackets(words: str, trained: list[Config]) -> None:
    assert parsed(f"--optim.milestones {words}", trained).optim.milestones == [12, 20, 24]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("datamodule: {class_path: a.B}", "datamodule.class_path is not taken, .*data.train and data.batch_size"),
        ("pl_module: {class_path: a.B}", "pl_module.class_path is not taken, .*model.backbone and margin.name"),
        ("trainer: {class_path: Trainer}", "trainer.class_path is not taken, .*trainer.devices and train.epochs"),
        ("results_dir: ${oc.env:DIR}/femb", r'results_dir is .*nothing fills in \$\{oc.env:DIR\}.*"\$DIR/femb"'),
        ("data: {val: [lfw.bin, '${X}/b.bin']}", r'data.val is .*--data.val "\$X/b.bin"'),
        ("data: {val: lfw.bin}", "data.val is lfw.bin: give a list"),
    ],
)
def test_configurations_of_lightning(text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.yaml").write_text(text)
    assert re.search(told, refused(f"--config {tmp_path / 'theirs.yaml'}", capsys))


def test_variables_that_the_shell_has_not_filled_in(trained: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("--data.train '${oc.env:DATA}/x'", "--data.train='${DATA}/x'", "--data.val a.bin '${DATA}/x'"):
        assert "or let the shell do it: --data." in (told := refused(words, capsys))
        assert told.endswith('"$DATA/x"')
    command = "pipe:cat ${DATA}/x.tar"
    assert parsed(f"--data.train '{command}'", trained).data.train == command
