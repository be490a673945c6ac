"""Published files through the command: what they are, and one sentence for each that is none."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import marginface
from marginface import cli
from marginface.backbones import create_backbone

State = dict[str, torch.Tensor]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return create_backbone("mobilefacenet", num_features=8).state_dict()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_checkpoint_becomes_a_model(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    halved = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"epoch": 3, "state_dict": halved}, "renamed.bin")
    cli.main(["import", "renamed.bin", "-o", "model"])
    said = capsys.readouterr().out
    for expected in (
        "insightface",
        "mobilefacenet",
        "8 numbers",
        "DataParallel",
        "float16; converted",
        "written to model",
    ):
        assert expected in said
    again = marginface.load("model")
    assert (again.config.backbone, again.config.num_features) == ("mobilefacenet", 8)
    assert again.notes["file"] == "renamed.bin"


def test_without_an_output_it_only_looks(state: State, tmp_path: Path) -> None:
    torch.save(state, "backbone.pth")
    cli.main(["import", "backbone.pth"])
    assert [path.name for path in tmp_path.iterdir()] == ["backbone.pth"]


def test_what_does_not_fit_is_a_table_and_may_be_allowed(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {k: v for k, v in state.items() if k != "conv_sep.layers.1.weight"} | {"extra.weight": torch.zeros(3)}
    wrong["layers.0.layers.1.bias"] = torch.zeros(7)
    torch.save(wrong, "backbone.pth")
    assert run("import", "backbone.pth", "-o", "model") == 2
    error = capsys.readouterr().err
    for line in (
        r"missing +conv_sep\.layers\.1\.weight",
        r"mismatched +layers\.0\.layers\.1\.bias .*\[7\]",
        r"unexpected +extra",
    ):
        assert re.search(line, error), error
    cli.main(["import", "backbone.pth", "-o", "model", "--allow-partial"])
    assert "fresh weights where the file's do not fit" in capsys.readouterr().out
    assert len(marginface.load("model").notes["partial"]) == 4


def cuda_saved(state: State, path: Path) -> None:
    """As written on a GPU: the storages name a device that is not here."""
    torch.save(state, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"X\x03\x00\x00\x00cpu")
    path.write_bytes(content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7"))


def test_a_file_saved_on_a_gpu_opens_without_one(state: State, tmp_path: Path) -> None:
    cuda_saved(state, tmp_path / "backbone.pth")
    cli.main(["import", "backbone.pth", "-o", "model"])
    assert marginface.load("model").device.type == "cpu"


def truncated(state: State, path: Path) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:9000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, r"is truncated or no PyTorch checkpoint \([\d,]+ bytes\); fetch it again"),
        (lambda _, path: path.write_bytes(b"<html><body>Sign in"), r"is a web page, not a checkpoint: .*open the link"),
        (lambda _, path: path.mkdir(), r"is a folder; it holds no checkpoint"),
        (lambda _, path: path.write_bytes(b""), r"is empty; fetch it again"),
        (lambda _, path: None, r"does not exist; check the name"),
        (
            lambda _, path: torch.save({"conv1.weight": torch.zeros(2), "layer1.0.bn1.weight": torch.zeros(2)}, path),
            r"looks like torchvision's ResNet, no face network",
        ),
        (lambda _, path: torch.save({"a": torch.zeros(2)}, path), r"is not recognised: 1 tensors"),
        (lambda state, path: torch.save(torch.zeros(9, 8), path), r"looks like a Partial FC shard"),
        (lambda _, path: torch.save(torch.nn.Linear(2, 2), path), r"is refused: .* a whole pickled model"),
        (lambda _, path: path.write_bytes(b"\x08\x07\x12\x07pytorch"), r"it looks like ONNX"),
    ],
    ids=["truncated", "html", "folder", "empty", "missing", "torchvision", "unknown", "shard", "pickled", "onnx"],
)
def test_bad_files_are_one_sentence(
    make: Any, message: str, state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(state, tmp_path / "backbone.pth")
    assert run("import", "backbone.pth", "-o", "model") == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "model").exists()


def test_zoo_lists_shows_and_checks(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["zoo"])
    assert "adaface-ir18-casia" in capsys.readouterr().out
    cli.main(["zoo", "adaface-ir50-ms1mv2"])
    said = capsys.readouterr().out
    assert "https://drive.google.com/file/d/1eUaSHG4pGlIZK7hBkqjyp2fc2epKoBvI" in said
    assert "marginface import adaface_ir50_ms1mv2.ckpt -o models/adaface-ir50-ms1mv2" in said
    assert "LFW 99.82" in said
    torch.save(state, "backbone.pth")
    cli.main(["zoo", "backbone.pth"])
    assert "insightface's layout, mobilefacenet, 8 numbers; every key fits" in capsys.readouterr().out
    assert run("zoo", "nothing-such") == 2
    assert "neither a row of the zoo nor a file" in capsys.readouterr().err


def test_backbones_have_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["backbones", "iresnet50", "mobilefacenet-se"])
    said = capsys.readouterr().out
    assert re.search(r"iresnet50 +43\.59 +6\.31 +112x112 +512", said), said
    assert re.search(r"mobilefacenet-se .* 128x128", said), said
