"""Which of our backbones a state dict is, by its keys and shapes alone."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from marginface.backbones import BACKBONES
from marginface.backbones.ir import IR, WIDTHS
from marginface.backbones.iresnet import IResNet
from marginface.backbones.mobilefacenet import MobileFaceNet
from marginface.backbones.sphere import Sphere
from marginface.backbones.vit import ViT
from marginface.weights.base import State

# a key that one of the networks has, and before it whatever a project or a class of the user puts there
MARKER = re.compile(
    r"((?:[^.]+\.)*?)"
    r"(?:layer[1-4]\.\d+\.prelu\.weight|body\.\d+\.res_layer\.|conv_sep\.layers\.|layers\.[1-9]\d*\.layers\."
    r"|features\.\d+\.inv_block\.8\.|blocks\.\d+\.attn\.qkv\.weight|conv[1-4]_\d+\.weight"
    r"|layer\d\.\d+\.block\.\d\.\d\.)"
)
MOST_PREFIXES = 8


class Layout(NamedTuple):
    """A backbone of ours: what `create_backbone` needs."""

    backbone: str
    num_features: int
    options: dict[str, Any]


def prefixes(state: State) -> list[str]:
    """What stands before the keys of the networks in a state dict, in its order: [""] where one stands alone."""
    found = dict.fromkeys(match[1] for key in state if (match := MARKER.match(key)))
    return list(found)[:MOST_PREFIXES]


def iresnet(state: State) -> Layout | None:
    if not _any(state, r"layer[1-4]\.\d+\.prelu\.weight"):
        return None
    blocks = [_count(state, rf"layer{stage}\.(\d+)\.") for stage in range(1, 5)]
    return Layout(
        _nearest(IResNet, "blocks", blocks), _length(state, "fc.weight"), {"se": _any(state, r".*\.se_block\.")}
    )


def ir(state: State) -> Layout | None:
    if not _any(state, r"body\.\d+\.res_layer\."):
        return None
    widths = [_length(state, key) for key in state if re.fullmatch(r"body\.\d+\.res_layer\.4\.weight", key)]
    blocks = [widths.count(width) for width in WIDTHS]
    options = {"se": _any(state, r".*\.se_block\.")}
    return Layout(_nearest(IR, "blocks", blocks), _length(state, "output_layer.3.weight"), options)


def mobilefacenet(state: State) -> Layout | None:
    if not _any(state, r"conv_sep\.layers\.|layers\.\d+\.layers\."):
        return None
    scale = _length(state, "layers.0.layers.0.weight", default=128) / 64
    return Layout(_nearest(MobileFaceNet, "scale", [scale]), _length(state, "features.layers.2.weight"), {})


def mobilefacenet_se(state: State) -> Layout | None:
    if not _any(state, r"features\.\d+\.inv_block\.8\."):
        return None
    return Layout("mobilefacenet-se", _length(state, "conv1_extra.weight"), {})


def vit(state: State) -> Layout | None:
    if not _any(state, r"blocks\.\d+\.attn\.qkv\.weight") or not _any(state, r"feature\.\d\."):
        return None
    dim = _length(state, "norm.weight")
    depth = _count(state, r"blocks\.(\d+)\.")
    mlp_ratio = _length(state, "blocks.0.mlp.fc1.weight", default=4 * dim) / dim
    options: dict[str, Any] = {
        # no key shows the number of heads: CVLface's base model is the only one with 16 and with this ratio
        "heads": 16 if mlp_ratio == 3 else 8,
        "mlp_ratio": mlp_ratio,
        "patch_size": _length(state, "patch_embed.proj.weight", default=9, axis=-1),
    }
    if "mask_token" not in state:
        options["mask_ratio"] = None
    return Layout(_nearest(ViT, "dim depth", [dim, depth]), _length(state, "feature.2.weight"), options)


def sphere(state: State) -> Layout | None:
    if not _any(state, r"conv[1-4]_\d+\.weight"):
        return None
    blocks = [(_count(state, rf"conv{stage}_(\d+)\.") - 1) // 2 for stage in range(1, 5)]
    square = _length(state, "fc5.weight", axis=1) == 512 * 7 * 7
    size = (112, 112) if square else (112, 96)
    return Layout(_nearest(Sphere, "blocks", blocks), _length(state, "fc5.weight"), {"image_size": size})


LAYOUTS: dict[str, Callable[[State], Layout | None]] = {
    "iresnet": iresnet,
    "ir": ir,
    "mobilefacenet": mobilefacenet,
    "mobilefacenet-se": mobilefacenet_se,
    "vit": vit,
    "sphere": sphere,
}


def _any(state: State, pattern: str) -> bool:
    return any(re.match(pattern, key) for key in state)


def _count(state: State, pattern: str) -> int:
    """One more than the largest number the pattern finds: a missing key in between does not change it."""
    numbers = [int(match[1][:6]) for key in state if (match := re.match(pattern, key))]
    return max(numbers, default=-1) + 1


def _length(state: State, key: str, default: int = 512, axis: int = 0) -> int:
    """A side of a tensor; the default where there is none."""
    shape = state[key].shape if key in state else ()
    return shape[axis] if -len(shape) <= axis < len(shape) and shape[axis] > 0 else default


def _nearest(builder: type, parameters: str, values: list[Any]) -> str:
    """The name of the builder's backbone whose fixed parameters are nearest; a difference shows in the key table."""
    distances = {}
    for name, candidate in BACKBONES.items():
        if isinstance(candidate, partial) and candidate.func is builder:
            fixed = [candidate.keywords[parameter] for parameter in parameters.split()]
            own = fixed[0] if isinstance(fixed[0], tuple) else fixed
            distances[name] = sum(abs(a - b) for a, b in zip(own, values, strict=True))
    return min(distances, key=distances.__getitem__)
