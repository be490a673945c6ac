"""Our weights as a state dict that InsightFace's own loader accepts. For `marginface export --to insightface-pth`."""

import torch
from torch import nn

from marginface.backbones import Backbone, create_backbone
from marginface.backbones.vit import Attention
from marginface.errors import InputError
from marginface.weights import insightface
from marginface.weights.base import State
from marginface.weights.keys import differences, table
from marginface.weights.layouts import LAYOUTS, Layout


def insightface_state(backbone: Backbone, mean: float = 127.5, std: float = 127.5) -> State:
    """Return the state dict of an iresnet, mobilefacenet or vision transformer under InsightFace's keys.

    InsightFace builds its batch norms with its own eps; a difference is moved into the running variance, exactly.
    mean, std: the backbone's preprocessing; InsightFace knows 127.5 and 127.5 only.
    Raises InputError for a backbone InsightFace cannot build, or another preprocessing.
    """
    if (mean, std) != (127.5, 127.5):
        raise InputError(
            f"the model takes (v - {mean}) / {std} and InsightFace feeds (v - 127.5) / 127.5; export to ONNX, "
            f"which can hold the preprocessing"
        )
    with torch.device("meta"):
        theirs = _theirs(backbone)
    state = {key: value.detach().cpu().contiguous() for key, value in backbone.state_dict().items()}
    _move_eps(backbone, theirs, state)
    return state


def _theirs(backbone: Backbone) -> Backbone:
    """InsightFace's network of that size, with its own options."""
    state = backbone.state_dict()
    layouts = (LAYOUTS[layout](state) for layout in insightface.FAMILY.layouts)
    layout: Layout | None = next((layout for layout in layouts if layout), None)
    if layout is None:
        raise InputError(f"InsightFace has no {type(backbone).__name__}; it has iresnet, mobilefacenet and vit")
    theirs = create_backbone(layout.backbone, layout.num_features)
    if rows := differences(theirs.state_dict(), state):
        raise InputError(f"InsightFace's {layout.backbone} would not load these weights:", table(rows))
    if _heads(backbone) != _heads(theirs):
        raise InputError(f"InsightFace's {layout.backbone} has other attention heads than this one")
    return theirs


def _heads(backbone: Backbone) -> list[int]:
    return [module.heads for module in backbone.modules() if isinstance(module, Attention)]


def _move_eps(backbone: Backbone, theirs: Backbone, state: State) -> None:
    """(x - mean) / sqrt(var + eps) stays the same when var takes up the difference of the eps."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            other = theirs.get_submodule(name)
            assert isinstance(other, type(module))
            if module.eps != other.eps:
                state[f"{name}.running_var"] = state[f"{name}.running_var"] + (module.eps - other.eps)
