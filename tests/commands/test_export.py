"""Models out through the command: what is written is what was asked for, and bad words are one sentence."""

from pathlib import Path

import pytest
import torch

import marginface
from marginface import cli
from marginface.embedder import Embedder, ModelConfig


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    Embedder.create(ModelConfig("small", 4, {"width": 4})).save("model")
    return "model"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(["export", *words])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_weights_in_one_file_open_as_the_model(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["export", model, "--to", "safetensors", "-o", "weights"])
    assert "weights: images: float32 (N, 3, 112, 112), RGB" in capsys.readouterr().out
    assert marginface.load("weights").config == marginface.load(model).config


@pytest.mark.parametrize("to", ["pt2", "torchscript-free-pt2"])
def test_a_torch_program_runs_without_the_package(to: str, model: str) -> None:
    cli.main(["export", model, "--to", to, "-o", "program.pt2", "--unit", "true"])
    embeddings = torch.export.load("program.pt2").module()(torch.rand(3, 3, 112, 112))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_bad_words_are_one_sentence(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "choose from 'onnx', 'openvino'" in refused(capsys, model, "--to", "torchscript", "-o", "out")
    assert "give a model's folder, a checkpoint" in refused(capsys, "nowhere", "--to", "pt2", "-o", "out")
    assert "give --benchmark" in refused(capsys, model, "--to", "onnx", "-o", "out", "--int8", "faces")
    assert "InsightFace has no SmallBackbone" in refused(capsys, model, "--to", "insightface-pth", "-o", "out")
    assert sorted(path.name for path in Path().iterdir()) == ["model"]
