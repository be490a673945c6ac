"""Numbers of a configuration: finite and within their ranges, or one sentence. Floor 0."""

import math
import re
from dataclasses import fields
from typing import Any

from marginface.errors import InputError

USUAL = "[0, 1e9]"


def check_numbers(section: Any, name: str, **ranges: str) -> None:
    """Raise InputError unless every number in the fields of a dataclass is finite and in its range.

    name: of the section, such as "optim". ranges: by field, as mathematics writes intervals: "(0, 1]" is above 0 and at
    most 1. Other fields have USUAL. The elements of a list are checked one by one.
    """
    for field in fields(section):
        value = getattr(section, field.name)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                key = f"{name}.{field.name}" if name else field.name
                check_number(number, key, ranges.get(field.name, USUAL))


def check_number(number: float, name: str, interval: str) -> None:
    """Raise InputError, naming `name`, unless `number` is finite and in `interval`, such as "(0, 1]"."""
    found = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", interval)
    assert found is not None, interval
    low, high = float(found[2]), float(found[3])
    inside = (number >= low if found[1] == "[" else number > low) and (
        number <= high if found[4] == "]" else number < high
    )
    if inside and math.isfinite(number):
        return
    words = [f"{low:g} or more" if found[1] == "[" else f"above {low:g}"]
    if math.isfinite(high):
        words.append(f"at most {high:g}" if found[4] == "]" else f"below {high:g}")
    raise InputError(f"{name} is {number:.10g}: give a number that is {' and '.join(words)}")
