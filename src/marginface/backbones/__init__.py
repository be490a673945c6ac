"""Networks from face images to embeddings, by name. For training, the embedder and the importers."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from marginface.backbones.blocks import Backbone
from marginface.backbones.gradient import GradientNet
from marginface.backbones.ir import IR
from marginface.backbones.iresnet import IResNet
from marginface.backbones.mobilefacenet import MobileFaceNet
from marginface.backbones.mobilefacenet_se import MobileFaceNetSE
from marginface.backbones.options import check_options
from marginface.backbones.small import SmallBackbone
from marginface.backbones.sphere import Sphere
from marginface.backbones.timm_models import PREFIX as TIMM
from marginface.backbones.timm_models import REFUSED, TimmBackbone
from marginface.backbones.vit import ViT
from marginface.errors import InputError

__all__ = ["BACKBONES", "Backbone", "create_backbone", "list_backbones"]

MOST_FEATURES = 16_384
# name -> builder(num_features=512, **options). What `partial` fixes is no option.
BACKBONES: dict[str, Callable[..., Backbone]] = {
    "iresnet18": partial(IResNet, blocks=(2, 2, 2, 2)),
    "iresnet34": partial(IResNet, blocks=(3, 4, 6, 3)),
    "iresnet50": partial(IResNet, blocks=(3, 4, 14, 3)),
    "iresnet100": partial(IResNet, blocks=(3, 13, 30, 3)),
    "iresnet200": partial(IResNet, blocks=(6, 26, 60, 6)),
    "mobilefacenet": partial(MobileFaceNet, blocks=(1, 4, 6, 2), scale=2),
    "mobilefacenet-large": partial(MobileFaceNet, blocks=(2, 8, 12, 4), scale=4),
    "mobilefacenet-se": MobileFaceNetSE,
    "ir18": partial(IR, blocks=(2, 2, 2, 2)),
    "ir34": partial(IR, blocks=(3, 4, 6, 3)),
    "ir50": partial(IR, blocks=(3, 4, 14, 3)),
    "ir101": partial(IR, blocks=(3, 13, 30, 3)),
    "vit-tiny": partial(ViT, dim=256, depth=12),
    "vit-small": partial(ViT, dim=512, depth=12),
    "vit-base": partial(ViT, dim=512, depth=24),
    "vit-large": partial(ViT, dim=768, depth=24),
    "vit-huge": partial(ViT, dim=1024, depth=48),
    "sphere20": partial(Sphere, blocks=(1, 2, 4, 1)),
    "sphere36": partial(Sphere, blocks=(2, 4, 8, 2)),
    "sphere64": partial(Sphere, blocks=(3, 8, 16, 3)),
    "small": SmallBackbone,
    "gradient": GradientNet,
    # a new backbone is one line here
}


def create_backbone(name: str, num_features: int = 512, **options: Any) -> Backbone:
    """Build a backbone with fresh weights.

    name: one of `list_backbones()`, or "timm:" and the name of a timm model.
    num_features: length of the embedding. options: the builder's own.
    Raises InputError for a name or an option that does not exist, listing the valid ones, and for an impossible value.
    """
    if type(num_features) is not int or not 1 <= num_features <= MOST_FEATURES:
        raise InputError(f"num_features is {num_features!r:.60}; give a whole number from 1 to {MOST_FEATURES}")
    if not isinstance(name, str):
        raise InputError(f"backbone is {name!r:.60}; give a network's name")
    if name.startswith(TIMM):
        if refused := [option for option in options if option.startswith(REFUSED)]:
            raise InputError(f"option {refused[0]} of {name} is not taken: its weights come from the model's own file")
        check_options(name, TimmBackbone, options)
        return TimmBackbone(name.removeprefix(TIMM), num_features, **options)
    if name not in BACKBONES:
        names = ", ".join(list_backbones())
        raise InputError(f"there is no backbone {name!r:.60}; choose {TIMM}<model> or one of {names}")
    valid = backbone_options(name)
    for option in options:
        if option not in valid:
            known = ", ".join(valid) or "none"
            raise InputError(f"backbone {name} has no option {option!r}; its options are: {known}")
    check_options(name, BACKBONES[name], options)
    try:
        return BACKBONES[name](num_features=num_features, **options)
    except (ValueError, ZeroDivisionError, RuntimeError) as error:  # values that fit their types but not each other
        if isinstance(error, InputError):
            raise
        raise InputError(f"backbone {name} cannot be built with {options}: {error}") from error


def list_backbones() -> list[str]:
    """The names `create_backbone` knows, besides any "timm:<model>"."""
    return list(BACKBONES)


def backbone_options(name: str) -> list[str]:
    """The options `create_backbone` takes for `name`, besides num_features."""
    builder = BACKBONES[name]
    fixed = {"num_features", *(builder.keywords if isinstance(builder, partial) else ())}
    return [option for option in inspect.signature(builder).parameters if option not in fixed]
