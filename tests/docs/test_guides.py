"""Every command of the guides and first pages runs, on tiny sets of the published formats; what they name exists."""

import os
import re
import shlex
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser

from ijb_set import write_ijb
from marginface import cli
from marginface.backbones import create_backbone
from marginface.commands import train
from marginface.embedder import Embedder, ModelConfig
from marginface.margins import list_margins
from marginface.training.config import Config, TrainerConfig, recipe_files
from marginface.training.start import start_training
from markdown import blocks
from published_sets import write_published_sets

DOCS = Path(__file__).parent.parent.parent / "docs"
GUIDES = sorted((DOCS / "guides").glob("*.md"))
PAGES = [DOCS / "index.md", DOCS / "finetuning.md", *GUIDES]
CHECKPOINTS = ("295672backbone.pth", "backbone_ms1mv3_arcface_r50_fp16.pth", "backbone.pth")
TINY = ModelConfig("small", 16, {"width": 4})
OPENVINO = """\
lr: 0.4
train_batch_size: 256
margin_type: cos
mining_type: sv
train_data_root: vggface2/aligned
val_data_root: lfw/aligned
val_list: lfw/pairs.txt
snap_prefix: MobileFaceNet
"""


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything the guides' readers have."""
    folder = write_published_sets(tmp_path_factory.mktemp("guides"))
    write_ijb(folder / "IJB", "IJBB")
    write_ijb(folder / "IJB", "IJBC")
    (folder / "my_config.yml").write_text(OPENVINO)
    torch.manual_seed(0)
    torch.save(create_backbone("iresnet18", 64).state_dict(), folder / CHECKPOINTS[0])
    for name in CHECKPOINTS[1:]:
        os.link(folder / CHECKPOINTS[0], folder / name)
    adaface = {f"model.{key}": value for key, value in create_backbone("ir18", 512).state_dict().items()}
    torch.save({"state_dict": adaface}, folder / "adaface_ir18_casia.ckpt")
    Embedder.create(TINY).save(folder / "models" / "base")
    for name in ("new", "val_new", "val_old"):
        (folder / name).symlink_to(folder / "photographs")
    for name in ("vggface2", "lfw"):  # what the guide of OpenVINO makes, in case another one comes first
        source = {"vggface2": "meta/train_list.txt", "lfw": "lfw_landmark.txt"}[name]
        words = f"align {folder}/{name}/{source} {folder}/{name}/aligned --template openvino --size 128"
        cli.main(shlex.split(words))
    return folder


@pytest.fixture
def short(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training as the command asks for it, but two steps of a tiny network on this machine."""
    monkeypatch.chdir(sets)

    def start(config: Config, **options: Any) -> None:
        faces = {"train": "photographs", "val": ["faces_emore/lfw.bin"]}
        procedural = faces if config.data.train.startswith("synthetic") else {}
        light = config.model.backbone == "mobilefacenet-se"
        start_training(
            replace(
                config,
                data=replace(config.data, batch_size=16, workers=2, **procedural),
                model=config.model if light else TINY,
                train=replace(config.train, epochs=1),
                trainer=TrainerConfig(accelerator="cpu"),
            ),
            **options | {"numbered": True},
        )

    monkeypatch.setattr(train, "start_training", start)


def commands(guide: Path) -> list[str]:
    return [line for block in blocks(guide, "sh") for line in block.replace("\\\n", " ").strip().splitlines()]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("guide", PAGES, ids=lambda path: path.stem)
def test_every_command(guide: Path) -> None:
    given = commands(guide)
    assert given
    for line in given:
        words = shlex.split(line)
        assert words[0] == "marginface", f"a command this test does not know: {line}"
        if "onnx" in words and not find_spec("onnxruntime"):
            continue  # of the extra
        cli.main(words[1:])


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_what_tables_name_exists(guide: Path) -> None:
    """Keys of ours in the tables are keys, recipes are recipes, margins are margins."""
    parser = ArgumentParser()
    parser.add_class_arguments(Config)
    keys = set(vars(parser.get_defaults().as_flat()))
    text = guide.read_text(encoding="utf-8")
    for key in re.findall(r"--((?:data|model|margin|softmax|optim|train|trainer|old)\.[\w.]+)", text):
        known = key in keys or key.startswith(("margin.options", "model.options"))
        assert known, f"{guide.name}: --{key}"
    for recipe in re.findall(r"--config ((?:elasticface|femb|adaface|arcface|cosface|openvino)-[\w-]+)", text):
        assert recipe in recipe_files() or recipe.endswith("-"), f"{guide.name}: {recipe}"
    for margin in re.findall(r"--margin\.name ([\w-]+)", text):
        assert margin in list_margins(), f"{guide.name}: {margin}"


def test_every_published_recipe_is_in_a_guide() -> None:
    text = " ".join(guide.read_text(encoding="utf-8") for guide in GUIDES)
    systems = {name.split("-")[0] for name in recipe_files()} - {"quickstart", "lfw", "finetune"}
    assert all(system in text for system in systems)
