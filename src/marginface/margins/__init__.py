"""All margins by name: `create_margin(name, **parameters)` builds one; the head, the CLI and users call it."""

import inspect
from typing import Any

from marginface.errors import InputError
from marginface.margins.arcface import ArcFace
from marginface.margins.base import Margin, MarginOptions
from marginface.margins.cosface import CosFace
from marginface.margins.normface import NormFace
from marginface.margins.softmax import Softmax

MARGINS: dict[str, type[Margin]] = {
    "softmax": Softmax,
    "normface": NormFace,
    "cosface": CosFace,
    "arcface": ArcFace,
}


def list_margins() -> list[str]:
    """The names `create_margin` knows, in the order of the papers."""
    return list(MARGINS)


def margin_parameters(name: str) -> list[str]:
    """Names of the parameters of one margin: the paper's own, then those every margin takes."""
    if name not in MARGINS:
        raise InputError(f"unknown margin {name!r}; choose one of {', '.join(MARGINS)}.")
    own = [
        p.name for p in inspect.signature(MARGINS[name]).parameters.values() if p.kind is not p.VAR_KEYWORD
    ]
    return own + [option for option in MarginOptions.__annotations__ if option not in own]


def create_margin(name: str, **parameters: Any) -> Margin:
    """Build a margin with the paper's parameter names and defaults; see docs/margins.md.

    Raises InputError for an unknown name or parameter, listing the valid ones.
    """
    valid = margin_parameters(name)
    for parameter in parameters:
        if parameter not in valid:
            raise InputError(f"margin {name!r} has no parameter {parameter!r}; it takes {', '.join(valid)}.")
    return MARGINS[name](**parameters)


__all__ = ["MARGINS", "Margin", "create_margin", "list_margins", "margin_parameters"]
