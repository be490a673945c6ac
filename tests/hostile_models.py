"""Folders that look like models and are not: every one must be refused in a sentence. For tests/security."""

import contextlib
import copy
import io
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from marginface import cli
from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.weights import load as load_model

SMALL = ModelConfig("small", 8, {"width": 4})


def write_model(folder: Path) -> Path:
    torch.manual_seed(0)
    Embedder.create(SMALL).save(folder)
    return folder


def with_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A model whose config.json is changed in place, or replaced by what `change` returns: text, bytes or values."""
    write_model(folder)
    config = json.loads((folder / "config.json").read_text())
    changed = change(config)
    content = config if changed is None else changed
    data = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content))
    (folder / "config.json").write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def with_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """A model whose tensors are changed in place, or the file replaced by the bytes that `change` returns."""
    write_model(folder)
    path = folder / "model.safetensors"
    tensors = load(path.read_bytes())
    changed = change(tensors)
    path.write_bytes(changed if isinstance(changed, bytes) else save(tensors))
    return folder


def with_header(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A model whose safetensors header is changed in place, or replaced by the bytes that `change` returns."""

    def sealed(_: Any) -> bytes:
        data = (folder / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        changed = change(header)
        text = changed if isinstance(changed, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return with_weights(folder, sealed)


def setting(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """Sets one value of a description."""

    def change(config: dict[str, Any]) -> None:
        for name in path[:-1]:
            config = config[name]
        config[path[-1]] = to

    return change


def dropping(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        for name in path[:-1]:
            config = config[name]
        del config[path[-1]]

    return change


def timm(name: str, **options: Any) -> Callable[[dict[str, Any]], None]:
    return setting("model", to={"backbone": f"timm:{name}", "num_features": 8, "options": options})


NUMBERS = [10**9, 10**400, 0, -1, 1.5, 1e999, float("nan"), True, "8", [8], {"a": 8}, None, "x" * 100_000]
CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"num_features {n}"[:40]: setting("model", "num_features", to=value) for n, value in enumerate(NUMBERS)},
    **{f"width {n}": setting("model", "options", to={"width": value}) for n, value in enumerate(NUMBERS)},
    **{f"size {n}": setting("preprocessing", "size", to=value) for n, value in enumerate(NUMBERS)},
    **{
        f"width of the image {n}": setting("preprocessing", "width", to=value)
        for n, value in enumerate(NUMBERS)
        if value is not None
    },
    **{
        f"mean {n}": setting("preprocessing", "mean", to=value)
        for n, value in enumerate(NUMBERS)
        if value not in (0, -1, 1.5)
    },
    **{f"std {n}": setting("preprocessing", "std", to=value) for n, value in enumerate(NUMBERS) if value not in (1.5,)},
    **{f"flip {n}": setting("preprocessing", "flip", to=value) for n, value in enumerate(NUMBERS)},
    **{
        f"quality {n}": setting("preprocessing", "quality", to=value)
        for n, value in enumerate(NUMBERS)
        if value is not None
    },
    "colour": setting("preprocessing", "colour", to="BGR"),
    "another size": setting("preprocessing", "size", to=96),
    "unknown template": setting("preprocessing", "template", to="nowhere"),
    "unknown field": setting("model", "weights", to="https://evil.example/a.pth"),
    "another format": setting("format", to="marginface 99"),
    "options a list": setting("model", "options", to=[["width", 4]]),
    "options of another": setting("model", "options", to={"depth": 10**9}),
    "self among the options": setting("model", "options", to={"self": 1}),
    "features twice": setting("model", "options", to={"num_features": 4}),
    "class_path": setting("model", "options", to={"width": {"class_path": "os.system"}}),
    "another network": setting("model", "backbone", to="iresnet100"),
    "unknown network": setting("model", "backbone", to="https://evil.example/net"),
    "network a list": setting("model", "backbone", to=["small"]),
    "model a list": setting("model", to=[SMALL.backbone]),
    "model a text": setting("model", to="small"),
    "no model": dropping("model"),
    "no backbone": dropping("model", "backbone"),
    "no preprocessing": dropping("preprocessing"),
    "preprocessing null": setting("preprocessing", to=None),
    "notes a list": setting("notes", to=["a"]),
    "a list": lambda _: [],
    "a number": lambda _: "1",
    "null": lambda _: "null",
    "empty": lambda _: b"",
    "not text": lambda _: b"\xff\xfe\x00",
    "nested": lambda _: "[" * 100_000,
    "nested objects": lambda _: '{"a":' * 100_000,
    "digits": lambda _: '{"format": ' + "9" * 10_000 + "}",
    "far too large": lambda _: b"[" + b"0," * (1 << 24) + b"0]",
    "timm by address": timm("hf-hub:org/name"),
    "timm by folder": timm("local-dir:/etc"),
    "timm with a pattern": timm("*" * 500),
    "timm deep": timm("vit_tiny_patch16_224", depth=4000, image_size=32),
    "timm deeper": timm("vit_tiny_patch16_224", depth=10**9),
    "timm wide": timm("vit_tiny_patch16_224", embed_dim=4096, depth=4096, num_heads=1),
    "timm large": timm("vit_tiny_patch16_224", image_size=4096, neck="flatten"),
    "timm window": timm("swin_tiny_patch4_window7_224", window_size=1000, image_size=1024),
    "timm blur": timm("resnetblur50"),
    "timm weights": timm("resnet18", pretrained=True),
    "timm file": timm("resnet18", checkpoint_path="/etc/passwd"),
    "timm address": timm("resnet18", pretrained_cfg={"url": "http://evil.example/a.pth"}),
    "timm address by name": timm("resnet18", pretrained_cfg="evil"),
    "timm overlay": timm("resnet18", pretrained_cfg_overlay={"hf_hub_id": "evil/evil"}),
    "timm cache": timm("resnet18", cache_dir="/tmp"),
    "timm features": timm("resnet18", features_only=True),
    "timm grey": timm("resnet18", in_chans=1),
    "timm classes": timm("resnet18", num_classes=10**9),
    "timm twice": timm("resnet18", model="resnet50"),
    "timm layers": timm("resnet18", layers=[4000, 4000, 4000, 4000]),
    "timm tag": timm("resnet18.hf-hub:evil"),
}


def changing(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    def changed(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = change(tensors[name]).contiguous()

    return changed


def with_number(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[tensor.numel() // 2] = value
        return tensor

    return change


WEIGHT, VARIANCE, COUNT = "embed.0.weight", "embed.1.running_var", "embed.1.num_batches_tracked"
WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "NaN": changing(WEIGHT, with_number(float("nan"))),
    "infinity": changing(WEIGHT, with_number(float("-inf"))),
    "NaN in a buffer": changing("embed.1.running_mean", with_number(float("nan"))),
    "NaN in half precision": changing(WEIGHT, lambda x: with_number(float("nan"))(x).half()),
    "too large for float32": changing(WEIGHT, lambda x: with_number(1e300)(x.double())),
    "negative variance": changing(VARIANCE, with_number(-1.0)),
    "float8": changing(WEIGHT, lambda x: x.to(torch.float8_e4m3fn)),
    "complex": changing(WEIGHT, lambda x: x.to(torch.complex64)),
    "whole numbers": changing(WEIGHT, lambda x: x.long()),
    "truth values": changing(WEIGHT, lambda x: x.bool()),
    "counts as floats": changing(COUNT, lambda x: x.float()),
    "transposed": changing(WEIGHT, lambda x: x.T),
    "flat": changing(WEIGHT, lambda x: x.reshape(-1)),
    "empty": changing(WEIGHT, lambda x: x[:0]),
    "missing": lambda tensors: list(tensors.pop(WEIGHT)) and None,
    "one more": lambda tensors: tensors.update({"extra.weight": torch.zeros(3)}),
    "case": lambda tensors: tensors.update({WEIGHT.upper(): tensors.pop(WEIGHT)}),
    "unprintable": lambda tensors: tensors.update({"\x1b[2J" * 50: torch.zeros(1)}),
    "nothing": lambda tensors: tensors.clear(),
    "no file": lambda _: b"",
    "short": lambda _: b"\x08\0\0",
    "text": lambda _: b"<html>sign in</html>",
    "endless header": lambda _: struct.pack("<Q", 1 << 60) + b"{",
    "large header": lambda _: struct.pack("<Q", 90_000_000) + b'{"a":' + b" " * 90_000_000,
    "nested header": lambda _: struct.pack("<Q", 100_000) + b"{" + b"[" * 99_999,
}
HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "huge shape": lambda header: header[WEIGHT].update(shape=[1 << 40, 1 << 40]),
    "negative shape": lambda header: header[WEIGHT].update(shape=[-8, -784]),
    "shape of text": lambda header: header[WEIGHT].update(shape="8"),
    "overlapping": lambda header: header[WEIGHT].update(data_offsets=header["trunk.1.weight"]["data_offsets"]),
    "beyond the file": lambda header: header[WEIGHT].update(data_offsets=[1 << 50, (1 << 50) + 4]),
    "backwards": lambda header: header[WEIGHT].update(data_offsets=header[WEIGHT]["data_offsets"][::-1]),
    "other type of the same size": lambda header: header[WEIGHT].update(dtype="I32"),
    "unknown type": lambda header: header[WEIGHT].update(dtype="F128"),
    "type that does not fit": lambda header: header[WEIGHT].update(dtype="F64"),
    "metadata of numbers": lambda header: header.update(__metadata__={"a": 1}),
    "many dimensions": lambda header: header[WEIGHT].update(shape=[1] * 10_000 + header[WEIGHT]["shape"]),
    "a name twice": lambda header: (
        json.dumps(header)[:-1].encode() + b',"embed.0.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    ),
    "a list": lambda header: json.dumps(list(header)).encode(),
}


def _linked(folder: Path, name: str, target: str) -> Path:
    write_model(folder)
    (folder / name).unlink()
    (folder / name).symlink_to(target)
    return folder


def _piped(folder: Path, name: str) -> Path:
    write_model(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    return folder


FILES: dict[str, Callable[[Path], Path]] = {
    "FIFO for weights": lambda folder: _piped(folder, "model.safetensors"),
    "FIFO for the description": lambda folder: _piped(folder, "config.json"),
    "device for weights": lambda folder: _linked(folder, "model.safetensors", "/dev/zero"),
    "device for the description": lambda folder: _linked(folder, "config.json", "/dev/zero"),
    "link to nowhere": lambda folder: _linked(folder, "model.safetensors", "nowhere"),
    "link to itself": lambda folder: _linked(folder, "model.safetensors", "model.safetensors"),
}
HOSTILE: dict[str, Callable[[Path], Path]] = {
    **{
        f"config: {name}": lambda folder, change=change: with_config(folder, change) for name, change in CONFIGS.items()
    },
    **{
        f"weights: {name}": lambda folder, change=change: with_weights(folder, change)
        for name, change in WEIGHTS.items()
    },
    **{
        f"header: {name}": lambda folder, change=change: with_header(folder, change) for name, change in HEADERS.items()
    },
    **{f"file: {name}": make for name, make in FILES.items()},
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in nested lists and dictionaries, those that hold others included."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with the value at one place replaced."""
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return changed


def answers(calls: list[list[str]], folder: str) -> list[tuple[int, str, list[str]]]:
    """Of commands run in `folder` without a network: exit code, last line of what they said, and what they asked for.

    To be run in a process of its own, see `bounded`.
    """
    os.chdir(folder)
    found = []
    for words in calls:
        asked: list[str] = []
        told = io.StringIO()
        code = 0
        with without_network(asked), contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            try:
                cli.main(words)
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException as error:
                code, _ = 1, told.write(f"{type(error).__name__}: {error}")
        found.append((code, told.getvalue(), asked))
    return found


def openings(folders: list[Path]) -> list[tuple[str, str, list[str]]]:
    """Of `marginface.load` of each: "opened", "refused" or another error's kind; the message; what it asked for."""
    found = []
    for folder in folders:
        asked: list[str] = []
        with without_network(asked):
            try:
                load_model(folder)
                found.append(("opened", "", asked))
            except InputError as refused:
                found.append(("refused", str(refused), asked))
            except BaseException as error:
                found.append((type(error).__name__, str(error), asked))
    return found


@contextlib.contextmanager
def without_network(asked: list[str]) -> Iterator[None]:
    """Within, every address that is asked for is noted and refused."""

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(str(arguments[-1]))
        raise OSError("the test has no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield
