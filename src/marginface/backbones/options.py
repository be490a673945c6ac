"""Whether a backbone's options have the types of its builder and sane values: they may come from a stranger's file."""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from marginface.errors import InputError

# not Any: for that the command line's parser makes an object of any class that a value names
Option = bool | int | float | str | list[int] | list[float] | None
LARGEST = 4096  # number that an option may be: no width, side or count of a face network comes near it
LONGEST = 64  # list of numbers, and word
KINDS: dict[Any, str] = {
    bool: "true or false",
    int: f"a whole number from 1 to {LARGEST}",
    float: f"a number from 0 to {LARGEST}",
    str: f"a word of at most {LONGEST} letters and digits",
    NoneType: "null",
}


def check_options(backbone: str, builder: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise InputError unless every option has the type that the builder's signature states, within LARGEST.

    Options that the signature does not name, as timm's own, may be any `Option`.
    """
    kind = builder.func if isinstance(builder, partial) else builder
    hints = get_type_hints(kind.__init__)
    for name, value in options.items():
        hint = hints.get(name, Option)
        if not _fits(value, hint):
            raise InputError(f"option {name} of backbone {backbone} is {value!r:.60}; give {_described(hint)}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is list:
        return isinstance(value, list) and len(value) <= LONGEST and all(_fits(one, arguments[0]) for one in value)
    if origin is tuple:  # JSON makes a list of it
        listed = isinstance(value, list | tuple) and len(value) == len(arguments)
        return listed and all(map(_fits, value, arguments))
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and 0 <= value <= LARGEST
    if hint is int:
        return type(value) is int and 1 <= value <= LARGEST
    if hint is str:
        return isinstance(value, str) and re.fullmatch(rf"\w{{1,{LONGEST}}}", value) is not None
    return type(value) is hint


def _described(hint: Any) -> str:
    if hint == Option:
        return "a number, a word, true, false, null or a list of numbers"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_described, arguments))
    if origin is Literal:
        return " or ".join(arguments)
    if origin is tuple:
        return f"a list of {len(arguments)}, each {_described(arguments[0])}"
    return KINDS[hint]
