"""All margins by name: `create_margin(name, **parameters)` builds one for the head, the CLI and users."""

import inspect
from numbers import Integral, Real
from typing import Any, get_args, get_type_hints

from marginface.errors import InputError
from marginface.margins.adacos import AdaCos
from marginface.margins.adaface import AdaFace
from marginface.margins.arcface import ArcFace
from marginface.margins.arcnegface import ArcNegFace
from marginface.margins.base import Margin, MarginOptions
from marginface.margins.binary import BinaryMargin
from marginface.margins.circle import CircleLoss
from marginface.margins.combined import Combined
from marginface.margins.cosface import CosFace
from marginface.margins.curricularface import CurricularFace
from marginface.margins.elasticface import (
    ElasticFaceArc,
    ElasticFaceArcPlus,
    ElasticFaceCos,
    ElasticFaceCosPlus,
)
from marginface.margins.magface import MagFace
from marginface.margins.normface import NormFace
from marginface.margins.softmax import Softmax
from marginface.margins.sphereface import SphereFace, SphereFaceR
from marginface.margins.sphereface2 import SphereFace2
from marginface.margins.support_vector import MVSoftmax, SVSoftmax
from marginface.margins.uniface import UniFace

MARGINS: dict[str, type[Margin] | type[BinaryMargin]] = {
    "softmax": Softmax,
    "normface": NormFace,
    "sphereface": SphereFace,
    "sphereface-r": SphereFaceR,
    "cosface": CosFace,
    "arcface": ArcFace,
    "combined": Combined,
    "adacos": AdaCos,
    "sv-softmax": SVSoftmax,
    "mv-softmax": MVSoftmax,
    "arcnegface": ArcNegFace,
    "circle": CircleLoss,
    "curricularface": CurricularFace,
    "magface": MagFace,
    "elasticface-arc": ElasticFaceArc,
    "elasticface-cos": ElasticFaceCos,
    "elasticface-arc-plus": ElasticFaceArcPlus,
    "elasticface-cos-plus": ElasticFaceCosPlus,
    "adaface": AdaFace,
    "sphereface2": SphereFace2,
    "uniface": UniFace,
}
NUMBERS = {float: (Real, "a number"), int: (Integral, "a whole number"), bool: (bool, "true or false")}


def list_margins() -> list[str]:
    """The names `create_margin` knows."""
    return list(MARGINS)


def margin_parameters(name: str) -> list[str]:
    """Parameter names of one margin: the paper's own, then those every softmax margin takes.

    "num_classes" is among them where the margin needs the number of classes; the head fills it in.
    """
    if name not in MARGINS:
        raise InputError(f"unknown margin {name!r}; choose one of {', '.join(MARGINS)}.")
    kind = MARGINS[name]
    parameters = inspect.signature(kind).parameters.values()
    own = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    return own + list(MarginOptions.__annotations__) if issubclass(kind, Margin) else own


def create_margin(name: str, **parameters: Any) -> Margin | BinaryMargin:
    """Build a margin with the paper's parameter names and defaults; see docs/margins.md.

    Raises InputError for an unknown name or parameter, listing the valid ones.
    """
    valid = margin_parameters(name)
    for parameter in parameters:
        if parameter not in valid:
            raise InputError(f"margin {name!r} has no parameter {parameter!r}; it takes {', '.join(valid)}.")
    hints = get_type_hints(MARGINS[name].__init__) | get_type_hints(MarginOptions)
    for parameter, value in parameters.items():  # words are checked by the margin that takes them
        for kind in {hints[parameter], *get_args(hints[parameter])} & NUMBERS.keys():
            abstract, words = NUMBERS[kind]
            if not isinstance(value, abstract | None):
                raise InputError(f"{parameter} of margin {name!r} must be {words}, not {value!r}.")
    if parameters.get("margin_grad") is not None:  # YAML reads true as a boolean; straight-through is usual too
        parameters["margin_grad"] = str(parameters["margin_grad"]).lower().replace("-", "_")
    return MARGINS[name](**parameters)


__all__ = ["MARGINS", "BinaryMargin", "Margin", "create_margin", "list_margins", "margin_parameters"]
