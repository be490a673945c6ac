"""Numbers of a configuration: in their ranges and finite, or one sentence that names them."""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import pytest

from marginface.embedder import ModelConfig
from marginface.errors import InputError
from marginface.ranges import check_number, check_numbers
from marginface.training.config import Config


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("(0, 1]", [1e-9, 1], [0, 1.001, -1]),
        ("[0, 1)", [0, 0.999], [1, -1e-9]),
        ("(0, inf)", [1e38], [0, float("inf")]),
        ("[1, 4096]", [1, 4096], [0, 4097, -3]),
    ],
)
def test_ends_of_intervals(interval: str, inside: list[float], outside: list[float]) -> None:
    for number in inside:
        check_number(number, "x", interval)
    for number in [*outside, float("nan"), float("-inf")]:
        with pytest.raises(InputError, match=r"^x is .*: give a number that is "):
            check_number(number, "x", interval)


@dataclass
class Section:
    share: float = 0.5
    counts: list[int] = field(default_factory=list)
    flag: bool = True
    text: str = ""


def test_elements_of_lists_and_other_types() -> None:
    check_numbers(Section(counts=[1, 2]), "s", share="(0, 1)")
    with pytest.raises(InputError, match=r"^s\.counts is -1: give a number that is 0 or more"):
        check_numbers(Section(counts=[1, -1]), "s")
    with pytest.raises(InputError, match=r"^share is 1: give a number that is above 0 and below 1"):
        check_numbers(Section(share=1), "", share="(0, 1)")


def sections(config: Any, name: str = "") -> list[tuple[str, Any, str]]:
    """Every number in a configuration: its key, its section, the field."""
    found = []
    for one in fields(config):
        value = getattr(config, one.name)
        if is_dataclass(value):
            found += sections(value, f"{name}{one.name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((f"{name}{one.name}", config, one.name))
    return found


def changed(section: Any, name: str, number: float) -> None:
    if isinstance(section, ModelConfig):  # checked by the configuration as a whole
        replace(Config(), model=replace(section, **{name: number}))
    else:
        replace(section, **{name: number})


@pytest.mark.parametrize(("key", "section", "name"), sections(Config()), ids=lambda value: str(value)[:40])
def test_no_number_of_a_configuration_is_absurd(key: str, section: Any, name: str) -> None:
    for number in (float("nan"), float("inf"), float("-inf"), -(10**12)):
        with pytest.raises(InputError, match=key.replace(".", r"\.")):
            changed(section, name, number)
