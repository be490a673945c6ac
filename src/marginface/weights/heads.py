"""Class weights kept in files of their own: ElasticFace's header, Partial FC's shards, CVLface's classifier; ours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marginface.embedder import model_file
from marginface.errors import InputError
from marginface.softmax import MarginSoftmax
from marginface.tensor_file import check_finite, open_tensors
from marginface.weights.base import State
from marginface.weights.container import PARTIAL_FC, read

HEAD = "head.safetensors"  # in the folder of an imported model
# key and whether it is stored (num_features, classes)
KEYS = {
    "kernel": True,  # ElasticFace
    "weight": False,  # Partial FC v2
    "head.kernel": True,  # AdaFace
    "classifier.kernel": True,  # CVLface
    "partial_fc.weight": False,  # CVLface
    f"{PARTIAL_FC}.weight": False,  # InsightFace's resume checkpoint
}


def read_head(paths: Sequence[Path], num_features: int) -> Tensor:
    """Class weights (classes, num_features), float32; several files are shards, in the order of their ranks."""
    return torch.cat([_read_one(path, num_features) for path in paths])


def take_over_head(head: MarginSoftmax, folder: str | Path) -> bool:
    """Fills a training head with the class weights and the margin's statistics beside an imported model.

    Returns False, and leaves the head alone, where the folder has none or counts other classes: fine-tuning on
    other people starts with fresh class weights. Works for a rank's shard too. Raises InputError for a damaged file.
    """
    return fill_head(head, saved_head(folder))


def saved_head(folder: str | Path) -> State:
    """What lies beside an imported model: "weight" (classes, num_features) and "margin." statistics; {} without."""
    file = model_file(Path(folder), HEAD)
    if not file.is_file():
        return {}
    with open_tensors(file) as opened:
        state = {name: opened.read(name).clone() for name in opened.shapes}
    check_finite(state, file)
    return state


@torch.no_grad()
def fill_head(head: MarginSoftmax, state: State) -> bool:
    """`take_over_head` of tensors at hand."""
    weight = state.get("weight")
    if weight is None or head.sub_centers > 1 or tuple(weight.shape) != (head.num_classes, head.num_features):
        return False
    buffers = dict(head.margin.named_buffers())
    head.weight.copy_(weight[head.shards.start : head.shards.stop])
    for key, value in state.items():
        own = buffers.get(key.removeprefix("margin."))
        if key.startswith("margin.") and own is not None and own.numel() == value.numel():
            own.copy_(value.view_as(own))
    return True


def class_weights(weight: Tensor, transposed: bool, num_features: int, where: str) -> Tensor:
    """(classes, num_features) in float32, from either way round. Raises InputError where neither side fits."""
    weight = weight.T if transposed else weight
    if weight.ndim != 2 or weight.shape[1] != num_features:
        raise InputError(
            f"{where} holds class weights {list(weight.shape)}, which do not go with embeddings of {num_features}; "
            f"take the head that was trained with this backbone"
        )
    check_finite({"class weights": weight}, where)
    return weight.float().contiguous()


def _read_one(path: Path, num_features: int) -> Tensor:
    content = read(path)
    if isinstance(content, Tensor):  # Partial FC v1
        return class_weights(content, False, num_features, str(path))
    state = _flat(content)
    for key, transposed in KEYS.items():
        if key in state:
            return class_weights(state[key], transposed, num_features, str(path))
    raise InputError(f"{path} holds no class weights; expected one of the keys {', '.join(KEYS)}")


def _flat(content: Any) -> State:
    """Tensors of the dict and of the dicts in it, the inner ones also by their own names but for Partial FC's."""
    flat: State = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, Tensor):
            flat[str(key)] = value
        elif isinstance(value, dict):
            prefix = f"{key}." if key == PARTIAL_FC else ""
            flat |= {f"{prefix}{inner}": item for inner, item in value.items() if isinstance(item, Tensor)}
    return {key.removeprefix("module."): value for key, value in flat.items()}
