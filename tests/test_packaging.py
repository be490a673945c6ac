"""What an installation brings: `dev` is every other extra and the tools of the tests."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import marginface

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def test_dev_brings_every_other_extra() -> None:
    (own,) = [line for line in EXTRAS["dev"] if line.startswith("marginface[")]
    assert set(re.findall(r"\w+", own.partition("[")[2])) == set(EXTRAS) - {"dev"}


def test_dev_repeats_nothing() -> None:
    def names(extra: str) -> set[str]:
        return {re.split(r"[\[>=<]", line)[0] for line in EXTRAS[extra]}

    assert names("dev") & set.union(*(names(extra) for extra in EXTRAS if extra != "dev")) == set()


def test_the_version_is_that_of_the_installation() -> None:
    assert marginface.__version__ == version("marginface")
