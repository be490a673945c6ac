"""Opens a checkpoint file without running anything in it, and finds the tensors. First step of every import."""

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from marginface.errors import InputError
from marginface.weights.base import State

# what training frameworks leave beside the weights; it is read as an empty stand-in and never imported
HARMLESS = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric|torchmetrics|omegaconf|easydict|yacs|pathlib|numpy)\.[\w.]+"
    r"|torch\.optim\.[\w.]+|argparse\.Namespace|collections\.\w+|datetime\.\w+|_codecs\.encode"
    r"|(copyreg|copy_reg)\._reconstructor"
    r"|(builtins|__builtin__)\.(object|dict|list|tuple|set|frozenset|int|float|bool|str|bytes|slice)"
)
# where projects keep the network's state dict within a checkpoint, first match first
NETWORK = ("state_dict", "state_dict_backbone", "model_state_dict", "model", "backbone", "net")
PARTIAL_FC = "state_dict_softmax_fc"
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


class _StandIn:
    """Takes the place of an object that is of no use here; does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _DictStandIn:
    """The same for kinds of dictionaries: PyTorch's safe mode fills no other class than OrderedDict."""

    def __new__(cls, *_: Any, **__: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]  # on purpose another class
        return OrderedDict()


def read(path: Path) -> Any:
    """What the file holds, on the CPU. Raises InputError saying what the file looks like and what to do."""
    _refuse_folder(path)
    with path.open("rb") as file:
        beginning = file.read(512)
    if not beginning:
        raise InputError(f"{path} is empty; fetch it again")
    if beginning[5:9] == b"\0\0\0{":  # first of all: eight bytes of length may look like anything
        return _read_safetensors(path)
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, meaning in BEGINNINGS.items():
        if text.startswith(magic):
            raise InputError(f"{path} is {meaning}")
    zipped = beginning.startswith(b"PK")
    if zipped:
        _refuse_archive(path)
    return _unpickle(path, zipped)


def network_state(content: Any, path: Path) -> State:
    """The state dict that holds the network. Partial FC's shard is added as `softmax_fc.weight`."""
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
    inner = next((content[key] for key in NETWORK if _is_state(content.get(key))), content)
    state = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(content)[:8]))
        raise InputError(
            f"{path} holds no tensors where weights are kept; its keys are {keys}; give a state dict alone"
        )
    if _is_state(content.get(PARTIAL_FC)):
        state |= {f"softmax_fc.{key}": value for key, value in content[PARTIAL_FC].items()}
    return state


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


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, Tensor) for item in value.values())


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        inside = sorted(p.name for p in path.rglob("*") if p.suffix in (".pth", ".pt", ".ckpt", ".safetensors"))
        hint = f"give one of its files: {', '.join(inside[:5])}" if inside else "it holds no checkpoint; give the file"
        raise InputError(f"{path} is a folder; {hint}")
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the name")


def _refuse_archive(path: Path) -> None:
    """Every zip archive but PyTorch's own, which holds one data.pkl; a damaged one is left to PyTorch."""
    try:
        names = zipfile.ZipFile(path).namelist()
    except Exception:  # a damaged file fails in any way
        return
    for pattern, meaning in ARCHIVES.items():
        if any(re.fullmatch(pattern, name) for name in names):
            raise InputError(f"{path} is {meaning}")
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise InputError(f"{path} is a zip archive without a checkpoint in it; it holds {', '.join(names[:3])}")


def _read_safetensors(path: Path) -> State:
    try:
        return load_safetensors(path.read_bytes())
    except SafetensorError as error:
        raise InputError(f"{path} looks like safetensors but is damaged ({error}); fetch it again") from error


def _unpickle(path: Path, zipped: bool) -> Any:
    """torch.load in its safe mode; what frameworks leave beside the weights becomes stand-ins."""
    stand_ins: list[Any] = []
    for _ in range(100):
        try:
            with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the pickle protocol, of files that are refused anyway
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            name = _unsafe_global(str(error))
            if name is None:
                raise InputError(_damaged(path, zipped)) from error
            if not HARMLESS.fullmatch(name):
                raise InputError(
                    f"{path} is refused: it would run {name}, which no checkpoint needs; it may be malicious, "
                    f"or hold a whole pickled model instead of a state dict"
                ) from error
            stand_ins.append((_DictStandIn if name.lower().endswith("dict") else _StandIn, name))
        except Exception as error:  # a damaged file fails in any way
            raise InputError(_damaged(path, zipped)) from error
    raise InputError(f"{path} is refused: it holds more kinds of objects than a checkpoint needs")


def _unsafe_global(message: str) -> str | None:
    """The name PyTorch refused, in full; built-in ones come without their module."""
    match = re.search(r"GLOBAL ([\w.]+)", message)
    return match and (match[1] if "." in match[1] else f"builtins.{match[1]}")


def _damaged(path: Path, zipped: bool) -> str:
    with path.open("rb") as file:
        old = file.read(len(OLD_PYTORCH)) == OLD_PYTORCH
    if zipped or old:
        return (
            f"{path} is truncated or no PyTorch checkpoint ({path.stat().st_size:,} bytes); fetch it again and "
            f"compare the size"
        )
    return f"{path} is no PyTorch checkpoint, or a damaged one; expected a .pth, .pt, .ckpt or .safetensors file"
