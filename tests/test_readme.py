"""The README, to the letter: every command and every line of Python of it runs, on small sets."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import marginface
from marginface import cli
from marginface.commands import train
from marginface.embedder import ModelConfig
from marginface.readers.synthetic import SyntheticFaces, write_folder
from marginface.training.config import Config
from marginface.training.start import start_training
from pages import blocks

README = Path(__file__).parent.parent / "README.md"
TINY_SET = "synthetic:identities=24,images=4,seed=1"


def lines() -> list[str]:
    return [line for block in blocks(README, "sh") for line in block.strip().splitlines()]


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photographs, their points and a list of pairs, as the README's reader has."""
    monkeypatch.chdir(tmp_path)
    faces = SyntheticFaces(24, 4)
    photographs = tmp_path / "images"
    write_folder(faces, photographs)
    rows = []
    for record in faces.read(range(len(faces))):
        person, number = record.key.split("/")
        file = photographs / person / f"{person}_{number}.png"
        (photographs / f"{record.key}.png").rename(file)
        rows.append(" ".join([f"{person}/{file.name}", *(f"{value:.1f}" for value in np.ravel(record.points))]))
    (tmp_path / "landmarks.txt").write_text("\n".join(rows))
    folds = [range(12), range(12, 24)]
    same = [[f"id{person:05d}\t1\t2" for person in fold] for fold in folds]
    different = [[f"id{person:05d}\t1\tid{(person + 1) % 24:05d}\t2" for person in fold] for fold in folds]
    pairs = ["2\t12", *same[0], *different[0], *same[1], *different[1]]
    (tmp_path / "pairs.txt").write_text("\n".join(pairs) + "\n")
    return tmp_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Training as the command asks for it, but for two steps, on few faces, with a thin network."""
    configs = []

    def start(config: Config, **options: Any) -> None:
        configs.append(config)
        if options["resume"]:
            return
        data = replace(config.data, val=[f"{TINY_SET},first=100"], batch_size=16)
        if data.train.startswith("synthetic"):
            data.train = TINY_SET
        model = ModelConfig(backbone="small", num_features=8, options={"width": 4})
        start_training(replace(config, data=data, model=model, train=replace(config.train, epochs=1)), **options)

    monkeypatch.setattr(train, "start_training", start)
    return configs


def test_the_first_two_lines_are_the_main_job_and_the_tests() -> None:
    assert len(blocks(README, "sh")[0].splitlines()) == len(blocks(README, "sh")[1].splitlines()) == 1
    assert lines()[0].endswith("marginface train")
    assert "pytest" in lines()[1]


def test_every_command(photographs: Path, small: list[Config]) -> None:
    given = ["marginface train", *lines()[2:]]
    for line in given:
        words = shlex.split(line)
        assert words[0] == "marginface", f"README has a command this test does not know: {line}"
        if ">" in words:
            at = words.index(">")
            with pytest.raises(SystemExit) as end:
                cli.main(words[1:at])
            assert not end.value.code
            (photographs / words[at + 1]).write_text("margin: {name: cosface}\n")
        else:
            cli.main(words[1:])
    assert len(small) == sum(line.startswith("marginface train") and ">" not in line for line in given)
    for name in ("report.html", "samples.png", "model/config.json", "metrics.json", "metrics.csv", "config.yaml"):
        assert (photographs / "runs" / "quickstart" / name).is_file()


def test_python(photographs: Path, small: list[Config]) -> None:
    cli.main(["train"])
    images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    names: dict[str, Any] = {"images": images, "marginface": marginface, "num_classes": 7}
    first, second = blocks(README, "python")
    exec(first, names)
    assert names["embeddings"].shape == (2, 8)
    names["embeddings"], names["labels"] = torch.randn(3, 512), torch.tensor([0, 6, 2])
    exec(second, names)
    assert names["loss"].isfinite()
