"""Checks of margin parameters: a value without meaning is refused with its unit and range. Used by every margin."""

import math

from marginface.errors import InputError


def radians(name: str, value: float) -> float:
    """Return an additive angular margin, checked: 0 to π/2."""
    hint = f"; {value:g} degrees are {math.radians(value):.4g}" if math.pi / 2 < value <= 90 else ""
    return _checked(name, value, 0 <= value <= math.pi / 2, f"an angle in radians between 0 and π/2{hint}")


def cosine(name: str, value: float) -> float:
    """Return an additive cosine margin, checked: 0 to 1."""
    hint = f"; {value:g} hundredths are {value / 100:g}" if 1 < value <= 100 else ""
    return _checked(name, value, 0 <= value <= 1, f"a difference of cosines between 0 and 1{hint}")


def share(name: str, value: float) -> float:
    """Return a share or a momentum, checked: 0 to 1."""
    return _checked(name, value, 0 <= value <= 1, "a number between 0 and 1")


def positive(name: str, value: float) -> float:
    """Return a finite number above 0, checked."""
    return _checked(name, value, value > 0, "a positive number")


def non_negative(name: str, value: float) -> float:
    """Return a finite number of at least 0, checked."""
    return _checked(name, value, value >= 0, "a number of at least 0")


def finite(name: str, value: float) -> float:
    """Return a finite number, checked."""
    return _checked(name, value, True, "a finite number")


def _checked(name: str, value: float, holds: bool, wanted: str) -> float:
    if not (holds and math.isfinite(value)):  # NaN compares false
        raise InputError(f"margin parameter {name} is {value:g}; give {wanted}.")
    return float(value)
