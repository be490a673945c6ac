"""Published files through the command: what they are, and one sentence for each that is none."""

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

import marginface
from marginface import cli
from marginface.backbones import create_backbone
from marginface.weights.zoo import rows

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
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in halved(state).items()}}, "renamed.bin")
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
    torch.save(state, path)
    with zipfile.ZipFile(path) as file:
        inside = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in inside.items():
            file.writestr(name, on_gpu(content) if name.endswith("data.pkl") else content)


def cuda_saved_long_ago(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    path.write_bytes(on_gpu(path.read_bytes()))


def on_gpu(pickled: bytes) -> bytes:
    assert pickled.count(b"X\x03\x00\x00\x00cpu")
    return pickled.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7")


def halved(state: State, dtype: torch.dtype = torch.float16) -> State:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}


@pytest.mark.parametrize("name", ["backbone.pth", "backbone.jpg"])
@pytest.mark.parametrize(
    "make",
    [
        cuda_saved,
        cuda_saved_long_ago,
        lambda state, path: torch.save(halved(state), path),
        lambda state, path: torch.save({"model": halved(state, torch.bfloat16)}, path),
        lambda state, path: torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path),
        lambda state, path: torch.save({f"_orig_mod.module.{k}": v for k, v in state.items()}, path),
        lambda state, path: save_file(state, path),
    ],
    ids=["cuda", "cuda-legacy", "half", "bfloat16", "data-parallel", "compiled", "safetensors"],
)
def test_odd_but_whole_files_work(make: Any, name: str, state: State, tmp_path: Path) -> None:
    make(state, tmp_path / name)
    model = marginface.load(tmp_path / name)
    assert (model.config.backbone, model.device.type) == ("mobilefacenet", "cpu")
    found = model.backbone.state_dict()
    for key, value in state.items():
        torch.testing.assert_close(found[key], value, rtol=0.01, atol=0.01)
        assert found[key].dtype in (torch.float32, torch.int64)


def truncated(state: State, path: Path) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:9000])


def zipped(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "x")


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
        (lambda _, path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), r"is HDF5, as Keras writes it"),
        (
            lambda _, path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n"),
            r"is a Git LFS pointer, .*git lfs pull",
        ),
        (lambda _, path: zipped(path, "faces/a.png"), r"is a zip archive without a checkpoint in it; .*faces/a\.png"),
        (lambda _, path: zipped(path, "r50/backbone.pth"), r"is a zip archive around the checkpoint; unpack it"),
        (lambda _, path: zipped(path, "model/code/__torch__.py", "model/data.pkl"), r"is a TorchScript program"),
        (lambda _, path: zipped(path, "model/archive_format", "model/models/model.json"), r"is an exported program"),
        (lambda _, path: zipped(path, "embeddings.npy"), r"is numpy arrays \(npz\)"),
        (lambda state, path: path.write_bytes(save(state)[:9000]), r"is damaged, or no safetensors file"),
    ],
    ids=[
        "truncated",
        "html",
        "folder",
        "empty",
        "missing",
        "torchvision",
        "unknown",
        "shard",
        "pickled",
        "onnx",
        "hdf5",
        "lfs",
        "zip",
        "zipped",
        "torchscript",
        "pt2",
        "npz",
        "safetensors",
    ],
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


def test_another_architecture_is_a_table_of_keys(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    shallow = {key: value for key, value in state.items() if not key.startswith("layers.5.")}
    torch.save(shallow, "backbone.pth")
    assert run("import", "backbone.pth", "-o", "model") == 2
    error = capsys.readouterr().err
    assert re.search(r"looks like insightface's mobilefacenet, but \d+ keys do not fit; take the right file", error)
    assert re.search(r"missing +layers\.5\.", error)


def test_zoo_lists_shows_and_checks(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["zoo"])
    listed = capsys.readouterr().out
    assert re.search(r"adaface-ir18-casia .* 99.13 .* MIT \(the repository's\).* research only", listed), listed
    for row in rows():  # none is cut short
        assert re.search(rf"{re.escape(row.command if row.source else row.why)} *{re.escape(row.where)}\n", listed), row
    cli.main(["zoo", "adaface-ir50-ms1mv2"])
    said = capsys.readouterr().out
    assert "https://drive.google.com/file/d/1eUaSHG4pGlIZK7hBkqjyp2fc2epKoBvI" in said
    assert "marginface import adaface_ir50_ms1mv2.ckpt -o models/adaface-ir50-ms1mv2" in said
    assert "LFW 99.82" in said
    assert "licence: MIT (the repository's); products: ask MSU" in said
    assert "training data: MS1MV2: non-commercial research" in said
    torch.save(state, "backbone.pth")
    cli.main(["zoo", "backbone.pth"])
    assert "insightface's layout, mobilefacenet, 8 numbers; every key fits" in capsys.readouterr().out
    assert run("zoo", "nothing-such") == 2
    assert "neither a row of the zoo nor a file" in capsys.readouterr().err


def test_backbones_have_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["backbones", "iresnet50", "mobilefacenet-se"])
    said = capsys.readouterr().out
    assert "images/s" not in said
    assert re.search(r"iresnet50 +43\.59 +6\.31 +112x112 +512", said), said
    assert re.search(r"mobilefacenet-se .* 128x128", said), said


def test_backbones_are_timed_here_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["backbones", "small", "--speed"])
    said = capsys.readouterr().out
    assert "images/s here" in said
    (speed,) = re.findall(r"small +2\.55 +0\.01 +112x112 +512 +([\d.]+)", said)
    assert float(speed) > 1
