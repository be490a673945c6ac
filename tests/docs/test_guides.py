"""What the tables of the guides name exists: our options, recipes and margins; every recipe is in a guide."""

import re
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from marginface.margins import list_margins
from marginface.training.config import Config, recipe_files

DOCS = Path(__file__).parent.parent.parent / "docs"
GUIDES = sorted((DOCS / "guides").glob("*.md"))


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
