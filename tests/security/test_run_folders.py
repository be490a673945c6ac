"""A stranger's run, opened or resumed: its configuration builds no more than its checkpoint proves, fetches nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import marginface
from bounded import outcome
from hostile_models import answers, openings
from marginface import cli
from marginface.errors import InputError
from marginface.weights.state import SavedState, list_states, write_state
from people import write_people

WORDS = [
    "--model.backbone=small", "--model.num_features=8", "--model.options.width=4", "--data.batch_size=16",
    "--data.val=[]", "--train.epochs=0.4", "--name=run", "--trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint and no model yet, as a stranger may send it."""
    folder = tmp_path_factory.mktemp("run")
    people = write_people(folder / "people")
    cli.main(["train", f"--data.train={people}", f"--output={folder}", *WORDS])
    (folder / "run" / "model").rename(folder / "model")
    return folder / "run"


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "wide": {"backbone": "small", "num_features": 16384, "options": {"width": 4096}},
    "another": {"backbone": "iresnet200", "num_features": 512, "options": {}},
    "billions": {"backbone": "small", "num_features": 10**9, "options": {"width": 4}},
    "option": {"backbone": "small", "num_features": 8, "options": {"width": 10**9}},
    "timm": {"backbone": "timm:resnet18", "num_features": 8, "options": {"pretrained": True}},
    "timm deep": {
        "backbone": "timm:vit_tiny_patch16_224",
        "num_features": 8,
        "options": {"depth": 4000, "embed_dim": 4096, "num_heads": 1},
    },
    "timm file": {"backbone": "timm:resnet18", "num_features": 8, "options": {"checkpoint_path": "x"}},
}


def changed(run: Path, to: Path, model: dict[str, Any], size: int = 112) -> Path:
    """A copy of the run whose configuration names another network."""
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["model"], settings["data"]["size"] = model, size
    to.mkdir(parents=True)
    (to / "config.yaml").write_text(yaml.safe_dump(settings))
    state = SavedState.open(list_states(run / "checkpoints")[0])
    write_state(to / "checkpoints" / state.folder.name, content(state), state.facts)
    return to


def content(state: SavedState) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint; batch norms and the head count in whole numbers."""
    counts = ("num_batches_tracked", "head.step")
    tensors = {
        name: torch.zeros(shape, dtype=torch.int64 if name.endswith(counts) else torch.float32)
        for name, shape in state.shapes.items()
    }
    state.read(tensors)
    return tensors


def test_resuming_builds_only_what_the_checkpoint_holds(run: Path, tmp_path: Path) -> None:
    folders = [changed(run, tmp_path / name, model) for name, model in CONFIGURATIONS.items()]
    folders.append(
        changed(run, tmp_path / "size", {"backbone": "small", "num_features": 8, "options": {"width": 4}}, 96)
    )
    calls = [["train", f"--resume={folder}", "--trainer.accelerator=cpu"] for folder in folders]
    kind, found = outcome(answers, calls, str(tmp_path), seconds=60)
    assert kind == "returned", found
    for folder, (code, told, asked) in zip(folders, found, strict=True):
        assert code == 2, told
        another = f"marginface: {folder / 'config.yaml'} names another network than the checkpoint holds"
        assert told.startswith(("marginface: model.num_features is 1000000000: give", another))
        assert told.count("\n") == 1, told
        assert not asked
        assert not (folder / "model").exists()


def test_without_a_checkpoint_nothing_is_fetched_and_memory_is_not_taken(run: Path, tmp_path: Path) -> None:
    calls = []
    for name in ("wide", "timm", "timm deep"):
        folder = changed(run, tmp_path / name, CONFIGURATIONS[name])
        (folder / "checkpoints").rename(folder / "elsewhere")
        calls.append(["train", f"--resume={folder}", "--trainer.accelerator=cpu"])
    kind, found = outcome(answers, calls, str(tmp_path), seconds=60)
    assert kind == "returned", found
    (wide, timm, deep) = found
    assert [code for code, _, _ in found] == [2, 2, 2]
    assert "GB for its weights, and" in wide[1]
    assert "begins with timm's published weights, which are not fetched on a folder's word" in timm[1]
    assert "cannot be built" in deep[1] or "GB for its weights, and" in deep[1]
    assert not any(asked for _, _, asked in found)


FACTS: dict[str, Any] = {
    "none": None,
    "text": "small",
    "billions": {"model": {"backbone": "small", "num_features": 10**9, "options": {}}},
    "no preprocessing": {"model": {"backbone": "small", "num_features": 8, "options": {"width": 4}}},
    "timm": {
        "model": {"backbone": "timm:resnet18", "num_features": 8, "options": {"pretrained": True}},
        "preprocessing": {"size": 112},
    },
}


@pytest.mark.parametrize("name", FACTS)
def test_what_a_checkpoint_says_of_its_network_is_checked(name: str, run: Path, tmp_path: Path) -> None:
    state = SavedState.open(list_states(run / "checkpoints")[0])
    shapes = {key: shape for key, shape in state.shapes.items() if key.startswith("backbone.")}
    facts = state.facts | {"model": FACTS[name]}
    write_state(tmp_path / "checkpoints" / "state-1", {key: torch.zeros(shape) for key, shape in shapes.items()}, facts)
    ((end, message, asked),) = openings([tmp_path])
    assert end == "refused", message
    assert message.startswith(str(tmp_path / "checkpoints" / "state-1"))
    assert not asked


def test_a_checkpoint_that_is_not_finite_is_named(run: Path, tmp_path: Path) -> None:
    model = {"backbone": "small", "num_features": 8, "options": {"width": 4}}
    good = SavedState.open(list_states(changed(run, tmp_path / "good", model) / "checkpoints")[0])
    assert marginface.load(tmp_path / "good").notes["checkpoint"] == good.folder.name
    folder = changed(run, tmp_path / "bad", model)
    state = SavedState.open(list_states(folder / "checkpoints")[0])
    tensors = content(state)
    tensors["backbone.embed.0.weight"][0, 0] = float("nan")
    write_state(state.folder, tensors, state.facts)
    with pytest.raises(InputError, match=r"state-\d+: embed\.0\.weight holds NaN or infinity"):
        marginface.load(folder)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", f"--resume={folder}", "--trainer.accelerator=cpu"])
