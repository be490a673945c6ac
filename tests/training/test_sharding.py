"""A network that is split over the processes trains as one copied to each, and either goes on with the other's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from marginface.errors import InputError
from marginface.training.config import Config, LoopConfig, TrainerConfig
from marginface.weights.opening import load
from people import write_people
from sharding_ranks import CASES, EXACT, copied_and_split
from training_ranks import command, join, processes

Found = dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the first of 2, 1 and 3 processes found; those of two left checkpoints to the others."""
    folder = tmp_path_factory.mktemp("sharding")
    people = write_people(folder / "people")
    found = {}
    for size in (2, 1, 3):
        assert join(processes(size, copied_and_split, people, folder, size), 300) == [0] * size
        found[size] = torch.load(folder / f"{size}.pt")
    return found


def same(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    torch.testing.assert_close(one["losses"], other["losses"], rtol=tolerance, atol=0)
    torch.testing.assert_close(one["norms"], other["norms"], rtol=10 * tolerance, atol=0)
    for key, value in one["model"].items():  # Adam makes much of gradients that are nearly nothing
        torch.testing.assert_close(value, other["model"][key], rtol=0, atol=10 * tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_same_training(name: str, found: Found) -> None:
    copied, split = (found[2][f"{name}-{way}"] for way in (False, True))
    assert len(set(copied[0]["losses"].tolist())) > 8  # it does move
    for one, other in zip(copied, split, strict=True):
        same(one, other, 1e-5 if name in EXACT else 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "saved"), [(2, False), (2, True), (1, True), (3, True)])
@pytest.mark.parametrize("name", EXACT)
def test_each_goes_on_with_the_other(name: str, size: int, saved: bool, found: Found) -> None:
    same(found[2][f"{name}-False"][1], found[size][f"{name}-{saved}-resumed"], 1e-5)


@pytest.mark.slow
def test_a_process_holds_its_share(found: Found) -> None:
    assert [found[size]["share"] for size in (1, 2, 3)] == [1.0, 1.0, pytest.approx(1 / 3, abs=0.05)]


WORDS = [
    "--model.backbone=small", "--model.num_features=16", "--model.options.width=4", "--data.batch_size=12",
    "--optim.ema=0.9", "--optim.lr=0.01", "--train.epochs=2", "--train.eval_every=5", "--train.checkpoint_every=7",
    "--train.async_checkpoints=true", "--trainer.accelerator=cpu", "--trainer.timeout=60",
]  # fmt: skip


@pytest.mark.slow
def test_a_run_from_beginning_to_end(tmp_path: Path) -> None:
    """Evaluated, saved, exported; and fine-tuned from what it left."""
    people, models = write_people(tmp_path / "people"), []
    for name, more in (("copied", "false"), ("split", "true"), ("tuned", "true")):
        words = ["train", f"--output={tmp_path}", f"--data.train={people}", f"--data.val=[{people}]", *WORDS]
        words += [f"--name={name}", f"--trainer.shard_backbone={more}"]
        words += [f"--init_from={tmp_path / 'split'}"] if name == "tuned" else []
        assert join(processes(2, command, tmp_path / f"{name}.log", words), 300) == [0, 0]
        assert (tmp_path / name / "report.html").is_file()
        models.append(load(tmp_path / name).backbone.state_dict())
    for key, value in models[0].items():
        torch.testing.assert_close(models[1][key], value, rtol=1e-3, atol=1e-4)
    start = load_file(tmp_path / "tuned" / "checkpoints" / "start" / "model.safetensors")
    assert all(torch.equal(value, models[1][key]) for key, value in start.items())


def test_what_it_does_not_go_with() -> None:
    for options in ({"compile": True}, {"precision": "16-mixed"}):
        with pytest.raises(InputError, match=r"shard_backbone goes with neither"):
            TrainerConfig(shard_backbone=True, **options)
    with pytest.raises(InputError, match=r"torch\.compile cannot see through"):
        Config(train=LoopConfig(activation_checkpointing=True), trainer=TrainerConfig(compile=True))
