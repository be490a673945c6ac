"""Parameters outside their meaning are refused with unit and range; what papers and references use is accepted."""

import math

import pytest

from marginface.errors import InputError
from marginface.margins import MARGINS, create_margin, margin_parameters

CLASSES = {"num_classes": 10}


def create(name: str, **parameters: object) -> object:
    return create_margin(name, **(CLASSES if "num_classes" in margin_parameters(name) else {}), **parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("arcface", {"m": 28.6}, "m is 28.6; give an angle in radians between 0 and π/2; 28.6 degrees are 0.4992"),
        ("arcface", {"m": 3.2}, "an angle in radians between 0 and π/2"),
        ("arcface", {"m": -0.5}, "an angle in radians between 0 and π/2"),
        ("arcface", {"m": math.nan}, "m is nan; give an angle in radians"),
        ("cosface", {"m": 35}, "m is 35; give a difference of cosines between 0 and 1; 35 hundredths are 0.35"),
        ("elasticface-arc", {"std": -0.05}, "std is -0.05; give a number of at least 0"),
        ("elasticface-cos", {"m": 35}, "a difference of cosines between 0 and 1"),
        ("elasticface-arc-plus", {"m": 28.6}, "an angle in radians"),
        ("cosface", {"s": math.nan}, "s is nan; give a positive number"),
        ("cosface", {"s": math.inf}, "s is inf; give a positive number"),
        ("sv-softmax", {"m": 30, "target": "arc"}, "30 degrees are 0.5236"),
        ("magface", {"u_m": 45.8}, "45.8 degrees are 0.7994"),
        ("magface", {"u_a": math.inf}, "0 < l_a < u_a"),
        ("sphereface", {"lambda_min": math.nan}, "lambda_min is nan"),
        ("arcface", {"interclass_filter": 1.5}, "interclass_filter is 1.5; give a number between 0 and 1"),
    ],
)
def test_values_without_meaning(name: str, parameters: dict[str, float], words: str) -> None:
    with pytest.raises(InputError) as refused:
        create(name, **parameters)
    assert words in str(refused.value)


NUMBERS = [(name, parameter) for name in MARGINS for parameter in margin_parameters(name) if parameter != "num_classes"]


@pytest.mark.parametrize(("name", "parameter"), NUMBERS)
def test_no_margin_takes_nan(name: str, parameter: str) -> None:
    """A parameter that a new margin forgets to check shows here."""
    with pytest.raises(InputError, match="nan"):
        create(name, **{parameter: math.nan})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("adaface", {"m": 0.4, "h": 0.333, "t_alpha": 1.0}),  # the class default of the authors' code
        ("adaface", {"eps": 0}),
        ("combined", {"m1": 0.9, "m2": 0.4, "m3": 0.15}),
        ("elasticface-arc", {"std": 0}),
        ("magface", {"target": "cos", "l_m": 0.35, "u_m": 0.35, "lambda_g": 150}),
        ("sphereface", {"m": 1}),
        ("sphereface2", {"alpha": 0.8, "r": 64, "m": 0.5}),
        ("sv-softmax", {"t": 1}),
        ("cosface", {"m": 0}),
    ],
)
def test_values_that_papers_use(name: str, parameters: dict[str, float]) -> None:
    create(name, **parameters)
