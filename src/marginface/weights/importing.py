"""The import itself: family by keys, layout by shapes, keys compared, colours turned. For the CLI and `load`."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from marginface.backbones import create_backbone
from marginface.errors import InputError
from marginface.tensor_file import check_finite
from marginface.weights import adaface, cvlface, femb, insightface, magface, openvino, sphereface, yakhyo
from marginface.weights.base import Family, ImportedModel, State
from marginface.weights.container import networks, plain, read
from marginface.weights.heads import KEYS as HEADS
from marginface.weights.heads import class_weights, read_head
from marginface.weights.keys import differences, table
from marginface.weights.layouts import LAYOUTS, Layout, prefixes

# the first family whose prefix and layout fit; those with a prefix of their own stand before those without
SOURCES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (magface, femb, cvlface, adaface, openvino, sphereface, yakhyo, insightface)
}
# keys that show what a file is that cannot be imported
FOREIGN = {
    r"(net\.)?(keypoint|blocks\.\d+\.attn\.rpe_)": "CVLface's KPRPE transformer, which needs key points",
    r"conv2d_1a\.conv\.": "facenet-pytorch's InceptionResnetV1",
    r"(backbone\.)?layer1\.0\.(conv3|bn1)\.": "torchvision's ResNet, no face network",
}

Path_ = str | os.PathLike[str]


def import_checkpoint(
    path: Path_,
    source: str = "auto",
    head: Path_ | Sequence[Path_] | None = None,
    allow_partial: bool = False,
    part: str = "",
) -> ImportedModel:
    """Read a published checkpoint into our layout; the result takes RGB.

    source: "auto", or one of SOURCES where the keys cannot tell (a bare state dict says nothing of colours).
    head: file with the class weights, or its shards in the order of their ranks.
    allow_partial: keep fresh weights where the file's do not fit; otherwise any difference is an error.
    part: which network of a file that holds several, such as "ema"; "" takes the one usually meant, and notes it.
    Raises InputError for what is no checkpoint, is not recognised, or does not fit, with the table of keys.
    """
    path = Path(path)
    found = networks(read(path), path)
    taken = part or next(iter(found))
    if taken not in found:
        names = ", ".join(name or "the file itself" for name in found)
        raise InputError(f"{path} holds no network {part!r:.60}; it holds {names:.300}")
    model = recognise(found[taken], source, allow_partial, name=str(path))
    if len(found) > 1:
        others = ", ".join(name or "the file itself" for name in found if name != taken)
        model.notes.insert(0, f"took the network {taken or 'of the file itself'}; choose another with --part: {others}")
    if head is not None:
        paths = [head] if isinstance(head, str | os.PathLike) else head
        model.head = read_head([Path(p) for p in paths], model.num_features)
    return model


def recognise(
    state: State, source: str = "auto", allow_partial: bool = False, name: str = "the state dict"
) -> ImportedModel:
    """The same for a state dict at hand. name: what errors call it."""
    state, notes = plain(state)
    family, layout, network, rest, wrapper = _find(state, source, name)
    options = {**family.options, **layout.options}
    model = ImportedModel(
        source=family.name,
        backbone=layout.backbone,
        num_features=layout.num_features,
        options=options,
        usage=family.usage,
        state_dict=network,
        notes=notes,
    )
    if wrapper:
        model.notes.append(
            f"removed the prefix {wrapper} before the keys; taken as a network of {family.name}, whose conventions may "
            f"not be yours: tell with --source"
        )
    _take_head(model, family, rest, name)
    _complete(model, allow_partial, name)
    if rest:
        model.notes.append(f"not used: {', '.join(key[:100] for key in sorted(rest)[:8])}")
    if family.bgr:
        _turn_first_convolution(model)
    check_finite(model.state_dict | model.head_state, name)
    return model


def _find(state: State, source: str, name: str) -> tuple[Family, Layout, State, State, str]:
    """Family and layout, the network's own entries, the others, and the prefix of a class around the network."""
    if source != "auto" and source not in SOURCES:
        raise InputError(f"there is no source {source!r}; choose auto or one of {', '.join(SOURCES)}")
    if found := _exact(state, source):
        return *found, ""
    for prefix in prefixes(state):
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if prefix and (found := _exact(inside, source)):
            family, layout, network, rest = found
            return family, layout, network, rest | {k: v for k, v in state.items() if not k.startswith(prefix)}, prefix
    raise InputError(_unknown(state, source, name))


def _exact(state: State, source: str) -> tuple[Family, Layout, State, State] | None:
    """The same for a state dict whose keys begin as one of the projects has them; None for any other."""
    for family in SOURCES.values() if source == "auto" else [SOURCES[source]]:
        if source == "auto" and family.with_head and not family.heads.keys() & state.keys():
            continue
        # told the family, its bare state dict is accepted too
        for prefix in family.prefixes if source == "auto" else (*family.prefixes, ""):
            found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            network = family.convert(found) if family.convert else found
            layouts = (LAYOUTS[layout](network) for layout in family.layouts)
            if layout := next((layout for layout in layouts if layout), None):
                outer = _outer(family, prefix)
                rest = {k: v for k, v in state.items() if not k.startswith(prefix) or k in outer}
                return family, layout, {k: v for k, v in network.items() if k not in outer}, rest
    return None


def _outer(family: Family, prefix: str) -> set[str]:
    """Keys of the head among the network's own, where the project publishes them side by side."""
    return {*family.heads, *family.head_state} if prefix == "" and prefix in family.prefixes else set()


def _unknown(state: State, source: str, name: str) -> str:
    for pattern, meaning in FOREIGN.items():
        if any(re.match(pattern, key) for key in state):
            return f"{name} looks like {meaning}; there is no such backbone here: marginface zoo lists what can be had"
    if state.keys() <= HEADS.keys():
        return f"{name} holds class weights and no network; give it as the head (--head) beside the backbone's file"
    keys = ", ".join(key[:100] for key in list(state)[:3])
    if source != "auto":
        return f"{name} is no {source} checkpoint (its first keys are {keys}); let the keys tell with source auto"
    return (
        f"{name} is not recognised: {len(state)} tensors, the first keys are {keys}; "
        f"known are the checkpoints of {', '.join(SOURCES)}: marginface zoo lists what can be had"
    )


def _take_head(model: ImportedModel, family: Family, rest: State, name: str) -> None:
    for key, transposed in family.heads.items():
        if key in rest:
            model.head = class_weights(rest.pop(key), transposed, model.num_features, f"{name}: {key}")
    for key, own in family.head_state.items():
        if key in rest:
            model.head_state[own] = rest.pop(key)


def _complete(model: ImportedModel, allow_partial: bool, name: str) -> None:
    """Compares with what the backbone expects; replaces what does not fit where that is allowed."""
    try:
        with torch.device("meta"):
            backbone = create_backbone(model.backbone, model.num_features, **model.options)
    except InputError as error:  # of shapes that no such network has
        raise InputError(f"{name}: {error}") from error
    expected = backbone.state_dict()
    model.usage = replace(model.usage, image_size=backbone.image_size)
    for key in expected:
        if key.endswith("num_batches_tracked"):  # files older than PyTorch 0.4.1 have no such counters
            model.state_dict.setdefault(key, torch.tensor(0))
    rows = differences(expected, model.state_dict)
    if not rows:
        return
    if not allow_partial:
        raise InputError(
            f"{name} looks like {model.source}'s {model.backbone}, but {len(rows)} keys do not fit; take the right "
            f"file, or keep fresh weights in their place with --allow-partial:",
            table(rows),
        )
    fresh = create_backbone(model.backbone, model.num_features, **model.options).state_dict()
    unfit = {row.key for row in rows}
    model.state_dict = {key: fresh[key] if key in unfit else model.state_dict[key] for key in expected}
    model.partial = table(rows, limit=len(rows))


def _turn_first_convolution(model: ImportedModel) -> None:
    """BGR to RGB: exact, as the convolution sums over the channels in whatever order."""
    key = next(key for key, value in model.state_dict.items() if _sees_pixels(value))
    model.state_dict[key] = model.state_dict[key].flip(1).contiguous()
    model.notes.append(f"trained on BGR; {key} was turned round to take RGB")


def _sees_pixels(value: Tensor) -> bool:
    return value.ndim == 4 and value.shape[1] == 3
