"""Whether the length of an embedding tells quality: the margin of a run decides, and the model remembers."""

from pathlib import Path

import numpy as np
import pytest

import marginface
from marginface import cli
from marginface.errors import InputError
from marginface.gallery.models import open_model
from marginface.margins import MARGINS
from marginface.margins.base import Margin
from people import write_people

TINY = [
    "--model.backbone=small", "--model.options.width=4", "--model.num_features=8", "--data.val=[]",
    "--data.batch_size=16", "--train.epochs=0.1", "--trainer.accelerator=cpu",
]  # fmt: skip
TELLS = {"magface", "adaface"}
FACES = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("quality") / "people")


def trained(people: Path, output: Path, margin: str, *words: str) -> Path:
    name = f"run-{len(list(output.glob('run-*')))}"
    cli.main(
        ["train", f"--data.train={people}", f"--output={output}", f"--name={name}", f"--margin.name={margin}",
         "--margin.options={}", *words, *TINY]
    )  # fmt: skip
    return output / name


def test_two_margins_promise_it() -> None:
    assert {name for name, kind in MARGINS.items() if issubclass(kind, Margin) and kind.norms_tell_quality} == TELLS


@pytest.mark.parametrize("margin", ["adaface", "magface", "sphereface", "arcface", "uniface"])
def test_the_model_of_a_run_knows(margin: str, people: Path, tmp_path: Path) -> None:
    run = trained(people, tmp_path, margin)
    model = marginface.load(run)
    _, weights = open_model(str(run)).embed(list(FACES))
    if margin in TELLS:
        lengths = np.linalg.norm(np.concatenate(list(model.raw([FACES], flip=False))), axis=1)
        np.testing.assert_allclose(model.quality(FACES), lengths, rtol=1e-5)
        assert len(set(weights.tolist())) == 3
    else:
        with pytest.raises(InputError, match="does not tell quality"):
            model.quality(FACES)
        assert (weights == 1).all()


def test_fine_tuning_follows_the_new_margin_and_a_refit_ends_it(people: Path, tmp_path: Path) -> None:
    base = trained(people, tmp_path, "adaface")
    tuned = trained(people, tmp_path, "arcface", f"--init_from={base}")
    assert marginface.load(tuned).preprocessing.quality is None
    assert marginface.load(tuned / "checkpoints" / "start").preprocessing.quality == "norm"  # as it was given
    back = trained(people, tmp_path, "magface", f"--init_from={tuned}")
    assert marginface.load(back).preprocessing.quality == "norm"
    refitted = trained(people, tmp_path, "adaface", "--train.refit=0.05")
    assert marginface.load(refitted).preprocessing.quality is None
