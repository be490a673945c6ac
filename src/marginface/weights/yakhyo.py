"""yakhyo's face-recognition: sphere20, 36 and 64 on 112x112, own keys. Its MobileFaceNet is InsightFace's."""

import re

import torch

from marginface.weights.base import Family, State, Usage


def _convert(state: State) -> State:
    """Keys of the plain sphere nets, whose inner convolutions have no bias here: zeros are the same."""
    converted = {}
    for key, value in state.items():
        new = _rename(key)
        converted[new] = value
        if re.fullmatch(r"conv\d_\d+\.weight", new):
            converted.setdefault(new.replace("weight", "bias"), torch.zeros(value.shape[0]))
    return converted


def _rename(key: str) -> str:
    if match := re.fullmatch(r"layer(\d)\.0\.([01])\.(weight|bias)", key):
        return f"{_LEAF[match[2]]}{match[1]}_1.{match[3]}"
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.block\.([01])\.([01])\.(weight|bias)", key):
        place = 2 * int(match[2]) + int(match[3])
        return f"{_LEAF[match[4]]}{match[1]}_{place}.{match[5]}"
    return re.sub(r"^fc\.", "fc5.", key)


_LEAF = {"0": "conv", "1": "relu"}

FAMILY = Family(
    name="yakhyo",
    prefixes=("",),
    layouts=("sphere",),
    usage=Usage(flip="concat"),
    convert=_convert,
)
