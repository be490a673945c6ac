"""Opens a checkpoint file without running anything in it, and finds the tensors. First step of every import."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marginface.errors import InputError
from marginface.readers.archive_index import zip_members
from marginface.tensor_file import open_tensors
from marginface.untrusted import open_file
from marginface.weights.base import State
from marginface.weights.layouts import prefixes
from marginface.weights.torch_file import RefusedName, read_torch

# what PyTorch and training frameworks leave beside the weights; it is passed over and never imported
HARMLESS = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric|torchmetrics|omegaconf|easydict|yacs|pathlib|numpy)\.[\w.]+"
    r"|torch\.optim\.[\w.]+|argparse\.Namespace|collections\.\w+|datetime\.\w+|_codecs\.encode"
    r"|(copyreg|copy_reg)\._reconstructor"
    r"|(builtins|__builtin__)\.(object|dict|list|tuple|set|frozenset|int|float|bool|str|bytes|bytearray|complex|slice)"
    r"|torch\.(Size|device|Tensor|\w+Storage|storage\.\w+Storage|nn\.parameter\.\w+|serialization\._get_layout)"
    r"|torch\.(_utils\._rebuild_\w+|per_(tensor|channel)_\w+)"
)
# where projects keep the network's state dict within a checkpoint, first match first
NETWORK = ("state_dict", "state_dict_backbone", "model_state_dict", "model", "backbone", "net")
PARTIAL_FC = "state_dict_softmax_fc"
DEPTH = 3  # of dictionaries within dictionaries that are looked through
OLD_PYTORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch.save began before version 1.6

A_PAGE = (
    "a web page, not a checkpoint: the server answered with a page instead of the file; open the link in a browser and "
    "save what it offers"
)
BEGINNINGS = {
    b"<": A_PAGE,
    b"{": "JSON, not a checkpoint: a server's answer instead of the file, or a description that lies beside it",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with: git lfs pull",
    b"\xff\xd8\xff": "a JPEG picture, not a checkpoint; give the .pth file",
    b"\x89PNG": "a PNG picture, not a checkpoint; give the .pth file",
    b"\x93NUMPY": "a numpy array, not a checkpoint; give the .pth file",
    b"\x08": "no PyTorch file; it looks like ONNX, which holds no training weights, so ask for the .pth file",
    b"\x1f\x8b": "gzip-compressed; unpack it first",
    b"\x89HDF": "HDF5, as Keras writes it; there is no importer for it, so ask for PyTorch weights",
}
# what a zip archive is that holds no checkpoint, by a name in it
ARCHIVES = {
    r"[^/]*/?constants\.pkl|[^/]*/code/.*": "a TorchScript program, which holds code; ask for the state dict",
    r"[^/]*/?(models/.*|archive_format|archive_version)": "an exported program (pt2), which cannot be taken apart; "
    "give the model it was made from",
    r"[^/]*\.npy": "numpy arrays (npz), not a checkpoint; give the .pth file",
    r".*\.(pth|pt|ckpt|safetensors)": "a zip archive around the checkpoint; unpack it and give the file inside",
}


def read(path: Path) -> Any:
    """What the file holds, on the CPU. Raises InputError saying what the file looks like and what to do."""
    _refuse_folder(path)
    with open_file(path) as file:
        beginning = file.read(512)
    if not beginning:
        raise InputError(f"{path} is empty; fetch it again")
    if is_safetensors(path):  # first of all: eight bytes of length may look like anything
        with open_tensors(path) as file:
            return {name: file.read(name).clone() for name in file.shapes}
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, meaning in BEGINNINGS.items():
        if text.startswith(magic):
            raise InputError(f"{path} is {meaning}")
    zipped = beginning.startswith(b"PK")
    if zipped:
        _refuse_archive(path)
    return _read_torch(path, zipped)


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as they do: the length of a header that is JSON."""
    with open_file(path) as file:
        return file.read(9)[5:] == b"\0\0\0{"


def networks(content: Any, path: Path) -> dict[str, State]:
    """The networks of a checkpoint, by where they lie: "ema", "state_dict.student"; the one usually meant first.

    Each with what lies beside it, such as class weights; Partial FC's shard is added as `softmax_fc.weight`. What holds
    tensors and none of the networks known here is one as well where there is nothing else, for messages to name it.
    Raises InputError for content without tensors.
    """
    if isinstance(content, Tensor):
        raise InputError(
            f"{path} holds one matrix {list(content.shape)} and no network: it looks like a Partial FC shard; "
            f"give it as the head beside the backbone's file"
        )
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not a state dict; save the model with "
            f"torch.save(model.state_dict(), ...)"
        )
    found: dict[str, State] = {}
    for name, state in sorted(_states(content), key=lambda one: _rank(one[0])):
        starts = prefixes(state)
        for prefix in starts:
            label = ".".join(filter(None, (name, prefix.rstrip(".") if len(starts) > 1 else "")))
            found[label] = {k: v for k, v in state.items() if _longest(k, starts) in (prefix, None)}
    if not found:
        found = dict(sorted(_states(content, depth=1), key=lambda one: _rank(one[0]))[:1])
    if not found:
        keys = ", ".join(map(str, list(content)[:8]))
        raise InputError(
            f"{path} holds no tensors where weights are kept; its keys are {keys:.300}; give a state dict alone"
        )
    shard = _tensors(content.get(PARTIAL_FC))
    return {name: state | {f"softmax_fc.{k}": v for k, v in shard.items()} for name, state in found.items()}


def _states(content: dict[Any, Any], depth: int = DEPTH) -> Iterator[tuple[str, State]]:
    """Every dictionary in `content` that holds tensors, once, with the keys that lead to it."""
    seen, level = {id(content)}, [("", content)]
    for _ in range(depth + 1):
        yield from ((name, state) for name, inner in level if (state := _tensors(inner)))
        below = [(f"{name}.{key}".lstrip("."), inner) for name, outer in level for key, inner in outer.items()]
        level = []
        for name, inner in below:
            if isinstance(inner, dict) and id(inner) not in seen:
                seen.add(id(inner))
                level.append((name, inner))


def _rank(name: str) -> int:
    """Where a network's place is among those that projects use, the unknown ones last."""
    places = (*NETWORK, "")
    return places.index(name) if name in places else len(places)


def _longest(key: str, starts: list[str]) -> str | None:
    """The network's prefix that a key belongs to; None for what lies beside them."""
    return max((start for start in starts if key.startswith(start)), key=len, default=None)


def _tensors(value: Any) -> State:
    """The tensors that a dictionary holds itself; {} of anything else."""
    items = value.items() if isinstance(value, dict) else ()
    return {str(key): item for key, item in items if isinstance(item, Tensor) and str(key).isprintable()}


def plain(state: State) -> tuple[State, list[str]]:
    """Without DataParallel's and torch.compile's prefixes, in float32; and a note on each change."""
    notes = []
    plain = {re.sub(r"(^|(?<=\.))(module|_orig_mod)\.", "", key): value for key, value in state.items()}
    if plain.keys() != state.keys():
        notes.append("removed the prefix that DataParallel or torch.compile puts before the keys")
    narrow = {value.dtype for value in plain.values() if value.is_floating_point()} - {torch.float32}
    if narrow:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in narrow))
        notes.append(f"stored as {names}; converted to float32")
    return {key: value.float() if value.is_floating_point() else value for key, value in plain.items()}, notes


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        inside = sorted(p.name for p in path.rglob("*") if p.suffix in (".pth", ".pt", ".ckpt", ".safetensors"))
        hint = f"give one of its files: {', '.join(inside[:5])}" if inside else "it holds no checkpoint; give the file"
        raise InputError(f"{path} is a folder; {hint}")
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the name")


def _refuse_archive(path: Path) -> None:
    """Every zip archive but PyTorch's own, which holds one data.pkl; a damaged one is found when it is read."""
    try:
        names = [member.name for member in zip_members(path)]
    except InputError:
        return
    for pattern, meaning in ARCHIVES.items():
        if any(re.fullmatch(pattern, name) for name in names):
            raise InputError(f"{path} is {meaning}")
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise InputError(f"{path} is a zip archive without a checkpoint in it; it holds {', '.join(names[:3])}")


def _read_torch(path: Path, zipped: bool) -> Any:
    try:
        return read_torch(path, lambda name: HARMLESS.fullmatch(name) is not None)
    except RefusedName as refused:
        raise InputError(
            f"{path} is refused: it would run {refused.name}, which no checkpoint needs; it may be malicious, "
            f"or hold a whole pickled model instead of a state dict"
        ) from refused
    except (ValueError, TypeError, KeyError, RuntimeError, struct.error) as error:
        raise InputError(_damaged(path, zipped, error)) from error


def _damaged(path: Path, zipped: bool, error: Exception) -> str:
    with open_file(path) as file:
        old = file.read(len(OLD_PYTORCH)) == OLD_PYTORCH
    reason = " ".join(str(error).split())[:200]
    if zipped or old:
        return (
            f"{path} is truncated or no PyTorch checkpoint ({path.stat().st_size:,} bytes); fetch it again and "
            f"compare the size ({reason})"
        )
    return (
        f"{path} is no PyTorch checkpoint, or a damaged one ({reason}); expected a .pth, .pt, .ckpt or .safetensors "
        f"file"
    )
