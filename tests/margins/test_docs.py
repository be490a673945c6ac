"""Every Python block of docs/margins.md runs, and its table names every margin with its parameters."""

import inspect
import re
from pathlib import Path

import pytest

from golden_files import entries
from marginface.margins import MARGINS

TEXT = (Path(__file__).parents[2] / "docs" / "margins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number: int) -> None:
    exec(compile(BLOCKS[number], f"docs/margins.md, block {number}", "exec"), {"__name__": "block"})


@pytest.mark.parametrize("name", list(MARGINS))
def test_table_has_the_parameters(name: str) -> None:
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |")]
    if "as above" in line:  # ElasticFace's variants
        return
    parameters = [p for p in inspect.signature(MARGINS[name]).parameters.values() if p.kind is not p.VAR_KEYWORD]
    everywhere = ("margin_grad", "interclass_filter")  # a table of their own
    for parameter in parameters:
        assert re.search(rf"\b{parameter.name}\b", line.rsplit("|", 3)[1]) or parameter.name in everywhere


def spelled_out(name: str) -> list[str]:
    """a_{b,c} is a_b and a_c."""
    if braces := re.search(r"\{(.*?)\}", name):
        return [full for one in braces[1].split(",") for full in spelled_out(name.replace(braces[0], one, 1))]
    return [name]


def test_every_reference_implementation_has_its_options() -> None:
    rows = TEXT[TEXT.index("| entries `heads/") :].partition("\n\n")[0].splitlines()[2:]
    told = {full for row in rows for name in re.findall("`(.*?)`", row.split("|")[1]) for full in spelled_out(name)}
    assert {name.removeprefix("heads/").rsplit("__", 1)[0] for name in entries("heads/")} <= told
