"""docs/scale.md quotes `marginface plan`, and this holds it to that."""

import functools
import re
from pathlib import Path

import pytest

from marginface.backbones.size import measure
from marginface.softmax import plan
from marginface.softmax.plan import HeadShape, activation_bytes

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
ROWS = re.findall(r"^\| ([\d,]+) \| (\d+) \| (\d+) \| ([\d.]+) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.M)


@pytest.fixture(autouse=True)
def measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (MEASURE, ACTIVATIONS):
        monkeypatch.setattr(plan, function.__name__, function)


MEASURE, ACTIVATIONS = functools.cache(measure), functools.cache(activation_bytes)


def predicted(classes: str, devices: str, batch: str, sample_rate: str) -> str:
    """The rest of a row, from what stands at its beginning."""
    shape = HeadShape(
        int(classes.replace(",", "")),
        batch=int(batch),
        devices=int(devices),
        sample_rate=float(sample_rate),
        fused=False,
    )
    found = plan.plan(shape, "iresnet100")
    times = found.milliseconds(shape.batch, teraflops=400, gigabytes=50)
    of_classes = sum(found.memory[f"class {part}"] for part in ("weights", "optimiser", "gradient"))
    waited = sum(ms for part, ms in times.items() if part.startswith("sending") and "backbone" not in part)
    gib = [f"{size / 2**30:.2f}" for size in (of_classes, sum(found.memory.values()))]
    parts = [times["arithmetic of the backbone"], times["arithmetic of the head"], waited]
    return " | ".join([*gib, *(f"{ms:.1f}" for ms in parts)])


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_row(row: int) -> None:
    *given, rest = ROWS[row]
    assert rest == predicted(*given)


def test_all_tables_are_found() -> None:
    assert len(ROWS) == 16
