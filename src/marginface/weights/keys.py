"""Compares a checkpoint's keys and shapes with those a backbone expects; the table users see when they differ."""

from dataclasses import dataclass

from torch import Tensor

from marginface.weights.base import State

ROWS = 12
LONGEST = 100  # characters of a key that are shown


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that does not fit: "missing", "unexpected" or "mismatched", with its shape there and here."""

    kind: str
    key: str
    expected: tuple[int, ...] | None
    found: tuple[int, ...] | None


def differences(expected: dict[str, Tensor], found: State) -> list[Difference]:
    """In the order missing, mismatched, unexpected."""
    missing, mismatched = [], []
    for key, value in expected.items():
        shape = tuple(value.shape)
        if key not in found:
            missing.append(Difference("missing", key, shape, None))
        elif tuple(found[key].shape) != shape:
            mismatched.append(Difference("mismatched", key, shape, tuple(found[key].shape)))
    unexpected = [
        Difference("unexpected", key, None, tuple(value.shape)) for key, value in found.items() if key not in expected
    ]
    return missing + mismatched + unexpected


def table(rows: list[Difference], limit: int = ROWS) -> str:
    """The differences as lines of text, the first `limit` of them."""
    names = [row.key[:LONGEST] for row in rows[:limit]]
    width = max(map(len, names), default=0)
    lines = [f"  {'':11} {'key':{width}}  {'expected':18} in the file"]
    for name, row in zip(names, rows, strict=False):
        lines.append(f"  {row.kind:11} {name:{width}}  {_shape(row.expected):18} {_shape(row.found)}")
    if len(rows) > limit:
        lines.append(f"  ... and {len(rows) - limit} more")
    return "\n".join(line.rstrip() for line in lines)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else str(list(shape))
