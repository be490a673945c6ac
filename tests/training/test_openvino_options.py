"""OpenVINO's @files and options: the same override order, every key mapped or explained in a sentence."""

import shlex
from pathlib import Path

import pytest

from marginface import cli
from marginface.commands import train
from marginface.errors import InputError
from marginface.training.config import Config
from marginface.training.openvino_options import KEYS, WITHOUT, translated

FILE = """\
#optimizer parameters
lr: 0.4
train_batch_size: 256,
#loss options
margin_type: cos
s: 30
m: 0.35
mining_type: sv
t: 1.1

model: mobilenet
embed_size: 256
snap_prefix: MobileFaceNet
devices: [0, 1]
train_dataset: vgg
train_data_root: $VGG/train/
snap_to_resume: None
weighted: false
"""
README = """\
train --train_data_root VGG/train/ --train_list VGG/meta/train_list.txt --train_landmarks VGG/bb_landmark/
--val_data_root LFW/lfw/ --val_list LFW/pairs.txt --val_landmarks LFW/lfw_landmark.txt
--train_batch_size 200 --snap_prefix mobilenet_256 --lr 0.35 --embed_size 256 --model mobilenet
--device 1 --val_step 500 --weighted
"""


ARC = {"overflow": "linear", "margin_grad": True}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Configurations that would have been trained; my_config.yml is in the working directory."""
    configs: list[Config] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VGG", "/data/vgg")
    (tmp_path / "my_config.yml").write_text(FILE)
    monkeypatch.setattr(train, "start_training", lambda config, **_: configs.append(config))
    return configs


def test_a_file_is_its_trainers_run(trained: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "@my_config.yml"])
    (config,) = trained
    assert (config.name, config.output, config.data.train) == ("MobileFaceNet", "snapshots", "/data/vgg/train/")
    assert (config.model.backbone, config.model.num_features) == ("mobilefacenet-se", 256)
    assert (config.optim.lr, config.data.batch_size, config.data.size) == (0.4, 256, 128)
    assert (config.optim.milestones, config.train.epochs) == ([3, 6, 9, 13], 30)
    assert config.margin.name == "sv-softmax"
    assert config.margin.options == {"s": 30, "m": 0.35, "t": 1.1, "target": "am"}
    assert (config.trainer.devices, config.data.sampling, config.init_from) == (2, "shuffled", "")
    assert capsys.readouterr().err == f"train_dataset has no counterpart: {WITHOUT['train_dataset']}\n"


def test_later_wins(trained: list[Config]) -> None:
    for words, m, lr in (
        (["-m", "0.2", "@./my_config.yml"], 0.35, 0.4),
        (["@./my_config.yml", "-m", "0.2"], 0.2, 0.4),
        (["--lr", "0.1", "@my_config.yml", "--margin.options.m", "0.3"], 0.3, 0.4),
        (["@my_config.yml", "--lr=0.1", "--m", "0.25"], 0.25, 0.1),
        (["@my_config.yml", "--optim.lr", "0.05"], 0.35, 0.05),
    ):
        cli.main(["train", *words])
        assert (trained[-1].margin.options["m"], trained[-1].optim.lr) == (m, lr), words
        assert trained[-1].margin.options["t"] == 1.1


def test_m_alone_is_the_margin_of_any_recipe(trained: list[Config]) -> None:
    cli.main(["train", "--config", "quickstart", "-m", "0.35"])
    assert trained[-1].margin.options == {"s": 24.0, "m": 0.35}
    assert trained[-1].name == "quickstart"


@pytest.mark.parametrize(
    ("words", "name", "options", "gamma"),
    [
        ("--margin_type arc", "sv-softmax", {"s": 30.0, "m": 0.35, "t": 1.1, "target": "arc"}, 0.0),
        ("--mining_type focal --gamma 3", "cosface", {"s": 30.0, "m": 0.35}, 3.0),
        ("--mining_type focal --margin_type arc --m 0.5 --s 64", "arcface", ARC | {"s": 64, "m": 0.5}, 2.0),
        ("--t 1.2", "sv-softmax", {"s": 30.0, "m": 0.35, "t": 1.2, "target": "am"}, 0.0),
    ],
)
def test_losses(trained: list[Config], words: str, name: str, options: dict[str, object], gamma: float) -> None:
    cli.main(["train", *words.split()])
    config = trained[-1]
    assert (config.margin.name, config.margin.options, config.softmax.focal_gamma) == (name, options, gamma)


def test_the_readmes_command(trained: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    """python train.py ... with all its words behind `marginface train`."""
    cli.main(shlex.split(README))
    config = trained[-1]
    assert config.data.train == "VGG/meta/train_list.txt"
    assert config.data.val == ["pairs:LFW/lfw/,pairs=LFW/pairs.txt"]
    assert (config.data.batch_size, config.optim.lr, config.trainer.devices) == (200, 0.35, 1)
    assert (config.train.eval_every, config.train.checkpoint_every, config.train.keep_models) == (500, 500, True)
    assert config.data.sampling == "balanced"
    sentences = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in sentences] == ["train_landmarks", "val_landmarks"]


def test_what_the_recipe_names_is_not_blamed_on_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, told in (
        (["--train_data_root", "mine"], "mine: no such file or folder"),
        (["--train_data_root", "synthetic:identities=20,images=10"], "--data.val)"),
        (["--embed_size", "64"], "--data.train)"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["train", *words])
        error = capsys.readouterr().err
        assert told in error
        assert ("of the recipe names it: give yours with" in error) == told.startswith("--")


def test_every_key_is_a_key(tmp_path: Path) -> None:
    for key in KEYS:
        value = {"model": "mobilenet", "margin_type": "arc", "mining_type": "focal"}.get(key, "1")
        words, sentences = translated([f"--{key}", value])
        assert words or sentences or key in ("val_list", "val_data_root"), key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr 0.4", "line 1, 'lr 0.4', is not one key: value"),
        ("lr: 0.4\nlearning: 1", "line 2: 'learning' is no option of that trainer"),
        ("margin_type: sphere", "margin_type sphere: that trainer has cos and arc"),
        ("mining_type: svv", "mining_type svv: that trainer has sv and focal"),
        ("model: rmnet", "model rmnet: of that trainer's networks there is mobilenet"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yml").write_text(text)
    with pytest.raises(InputError, match=message):
        translated([f"@{tmp_path / 'bad.yml'}"])
    with pytest.raises(InputError, match="no such file"):
        translated([f"@{tmp_path / 'none.yml'}"])
