"""Bad files: one sentence each, and nothing in them ever runs."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from marginface.backbones import create_backbone
from marginface.errors import InputError
from marginface.weights import import_checkpoint, recognise
from marginface.weights.container import read


class Attack:
    """Unpickled the usual way, leaves a file behind."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create_backbone("mobilefacenet", num_features=8).state_dict()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "attack",
    [
        lambda target: Attack(os.system, f"touch {target}"),
        lambda target: Attack(eval, f"open({str(target)!r}, 'w')"),
        lambda target: Attack(exec, f"open({str(target)!r}, 'w')"),
        lambda target: Attack(Path.touch, target),
        lambda target: Attack(getattr, Path(target), "touch"),
    ],
)
def test_malicious_pickle_is_refused_and_never_run(attack: Any, legacy: bool, state: Any, tmp_path: Path) -> None:
    target, path = tmp_path / "harmed", tmp_path / "backbone.pth"
    torch.save({"state_dict": state, "extra": attack(target)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"is refused: it would run .* may be malicious"):
        import_checkpoint(path)
    assert not target.exists()


def test_malicious_bare_pickle_is_refused(tmp_path: Path) -> None:
    target, path = tmp_path / "harmed", tmp_path / "backbone.pth"
    path.write_bytes(pickle.dumps(Attack(os.system, f"touch {target}"), protocol=2))
    with pytest.raises(InputError, match=r"is no PyTorch checkpoint|is refused"):
        import_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_names_that_look_harmless_are_not_imported(protocol: int, tmp_path: Path) -> None:
    """`numpy.*` is let through as an empty stand-in; the function itself must not be reached."""
    path = tmp_path / "backbone.pth"
    target = tmp_path / "harmed"
    harm = f"cnumpy.f2py\nos.system\n(Vtouch {target}\ntR."
    path.write_bytes(harm.encode() if protocol == 0 else pickle.dumps(harm, protocol))
    with pytest.raises(InputError):
        import_checkpoint(path)
    assert not target.exists()


def test_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(InputError, match="hold a whole pickled model instead of a state dict"):
        import_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (b"<!DOCTYPE html><html>Virus scan warning</html>", "is a web page, not a checkpoint"),
        (b"\n  <HTML><body>404", "is a web page, not a checkpoint"),
        (b"\xef\xbb\xbf<!-- saved --><html>", "is a web page, not a checkpoint"),
        (b"<Error><Code>AccessDenied</Code>", "is a web page, not a checkpoint"),
        (b'{"error": "quota exceeded"}', "is JSON, not a checkpoint: a server's answer"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is a JPEG picture, not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"\x08\x07\x12\x07pytorch", "it looks like ONNX"),
        (b"\x1f\x8b\x08\x00", "is gzip-compressed; unpack it first"),
        (b"epoch,loss\n1,2\n", "is no PyTorch checkpoint, or a damaged one"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{ broken", "is damaged, or no safetensors file"),
    ],
)
def test_what_is_no_checkpoint(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "backbone.pth").write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_checkpoint(tmp_path / "backbone.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_file(legacy: bool, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "backbone.pth", _use_new_zipfile_serialization=not legacy)
    good = (tmp_path / "backbone.pth").read_bytes()
    (tmp_path / "backbone.pth").write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match=r"is truncated or no PyTorch checkpoint \([\d,]+ bytes\); fetch it again"):
        import_checkpoint(tmp_path / "backbone.pth")


def test_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as file:
        file.writestr("a.txt", "a")
    with pytest.raises(InputError, match=r"is a zip archive without a checkpoint in it; it holds a\.txt"):
        import_checkpoint(tmp_path / "faces.zip")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_answered_with_a_sentence(data: st.DataObject, tmp_path: Path) -> None:
    """Cut short, or with bytes changed: never another error than InputError, and that one names the file."""
    path = tmp_path / "backbone.pth"
    content = {"state_dict": {"conv_sep.layers.0.weight": torch.ones(4, 4, 1, 1)}, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=data.draw(st.booleans()))
    damaged = bytearray(path.read_bytes())
    places = st.integers(0, 2**20)  # not by length: it is another one each time, for torch writes addresses
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(places) % len(damaged)] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: 1 + data.draw(places) % len(damaged)])
    with pytest.raises(InputError, match="backbone"):
        import_checkpoint(path)


def test_folder_and_missing_file(state: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; it holds no checkpoint"):
        import_checkpoint(tmp_path)
    torch.save(state, tmp_path / "16backbone.pth")
    with pytest.raises(InputError, match=r"give one of its files: 16backbone\.pth"):
        import_checkpoint(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        import_checkpoint(tmp_path / "nothing.pth")


@pytest.mark.parametrize(("content", "message"), [([1], "holds a list"), ({"lr": 0.1}, "holds no tensors")])
def test_checkpoints_without_weights(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=message):
        import_checkpoint(tmp_path / "x.pth")


def test_parallel_prefix_and_half_precision_are_undone_and_told(state: Any) -> None:
    halved = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}
    model = recognise(halved)
    assert all(v.dtype in (torch.float32, torch.int64) for v in model.state_dict.values())
    assert any("DataParallel" in note for note in model.notes)
    assert "stored as float16; converted to float32" in model.notes


@pytest.mark.parametrize("first", range(0, 256, 8))
def test_safetensors_are_read_whatever_their_length_looks_like(first: int, tmp_path: Path) -> None:
    """They begin with the length of their header, which may begin like another kind of file: 8 like ONNX."""
    tensors = {"a": torch.ones(1)}
    missing = (first - save(tensors, {"note": ""})[0]) % 256
    (tmp_path / "renamed.pth").write_bytes(save(tensors, {"note": "x" * missing}))
    assert (tmp_path / "renamed.pth").read_bytes()[0] == first
    assert read(tmp_path / "renamed.pth").keys() == {"a"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["conv2d_1a.conv.weight", "logits.weight"], "looks like facenet-pytorch's InceptionResnetV1"),
        (["conv1.weight", "layer1.0.bn1.weight", "layer1.0.conv3.weight"], "looks like torchvision's ResNet"),
        (["a.weight", "b.weight", "c.weight"], "is not recognised: 3 tensors, the first keys are a.weight, b"),
    ],
)
def test_foreign_networks(keys: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recognise({key: torch.zeros(2, 2) for key in keys})


def test_source_may_be_told(state: Any) -> None:
    with pytest.raises(InputError, match=r"no source 'arcface'; choose auto or one of magface, femb"):
        recognise(state, source="arcface")
    with pytest.raises(InputError, match="is no adaface checkpoint"):
        recognise(state, source="adaface")


def test_a_bare_state_dict_takes_the_conventions_of_the_source_told() -> None:
    with torch.device("meta"):
        shapes = create_backbone("iresnet18").state_dict()
    bare = {key: torch.ones(value.shape) for key, value in shapes.items()}
    assert recognise(bare).source == "insightface"
    told = recognise(bare, source="magface")
    assert (told.source, told.usage.std, told.options["bn_eps"]) == ("magface", 255, 2e-5)
    assert "trained on BGR; conv1.weight was turned round to take RGB" in told.notes
