"""Every recipe, on a tiny set of its own data format: three steps from the command line, then all it leaves behind."""

import json
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from marginface import cli
from marginface.backbones import create_backbone
from marginface.commands import COMMANDS
from marginface.training.config import recipe_files
from marginface.training.monitor import read_metrics
from published_sets import write_published_sets

OWN_DATA = {"quickstart", "lfw-scratch", "finetune"}  # no published run: they have tests of their own
RECIPES = {name: yaml.safe_load(file.read_text()) for name, file in recipe_files().items() if name not in OWN_DATA}
OWN_NETWORK = "openvino-mobilefacenet-cos-sv"  # trained as it is; the others have a tiny network instead, for time
TINY = ["--model.backbone=small", "--model.options={width: 4}"]
TINY_OF_LARGER = [*TINY, "--data.size=112", "--data.resize=true"]  # it takes no other size
BATCH = 8
# Many name the same benchmarks: one of them is measured on all, the others on the first, for time
ON_ALL = set({str(recipe["data"]["val"]): name for name, recipe in RECIPES.items()}.values())


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_published_sets(tmp_path_factory.mktemp("published"))
    for words in (
        f"align {folder}/vggface2/meta/train_list.txt {folder}/vggface2/aligned --template openvino --size 128",
        f"align {folder}/lfw/lfw_landmark.txt {folder}/lfw/aligned --template openvino --size 128",
        f"convert {folder}/faces_emore/imgs {folder}/faces_emore_subset"
        f" --subset {folder}/ms1mv2_train_subset_index.txt --min-images 5",
    ):
        cli.main(shlex.split(words))
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_three_steps(name: str, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sets)
    others = TINY_OF_LARGER if "size" in RECIPES[name]["data"] else TINY
    tiny = [] if name == OWN_NETWORK else others
    images = 55 if name.endswith("subset") else 60
    words = ["train", "--config", name, f"--data.batch_size={BATCH}", "--data.workers=2", f"--output={tmp_path}", *tiny]
    val = RECIPES[name]["data"]["val"][: None if name in ON_ALL else 1]
    words.append(f"--data.val={json.dumps(val)}")
    cli.main([*words, f"--train.epochs={3 / (images // BATCH)}", "--train.log_every=1", "--trainer.devices=1"])
    rows = read_metrics(tmp_path / name / "metrics.csv")
    assert [row["step"] for row in rows if row["loss"]] == ["1", "2", "3"]
    assert (tmp_path / name / "model" / "model.safetensors").is_file()
    results = json.loads((tmp_path / name / "metrics.json").read_text())["results"]
    assert len(results) == 3 * len(val)


@pytest.mark.parametrize("backbone", sorted({json.dumps(recipe["model"]) for recipe in RECIPES.values()}))
def test_their_own_backbones_exist(backbone: str) -> None:
    model = json.loads(backbone)
    with torch.device("meta"):
        create_backbone(model["backbone"], model["num_features"], **model.get("options", {}))


def test_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "recipes" in COMMANDS
    cli.main(["recipes"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in RECIPES)
