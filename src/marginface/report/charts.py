"""Geometry of the page's charts: axes, ticks and paths in SVG units. `templates/chart.svg.j2` draws them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 46
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


@dataclass(frozen=True)
class Axis:
    """One axis. unit: "percent" (of shares), "rate" (powers of ten) or "number"; log needs low > 0."""

    label: str
    low: float
    high: float
    log: bool = False
    unit: str = "number"
    marks: tuple[float, ...] = ()  # ticks, where powers of ten are too few

    def fractions(self, values: np.ndarray) -> np.ndarray:
        """Position of `values` along the axis, 0 at its low end, clipped to the axis."""
        values, low, high = np.asarray(values, dtype=np.float64), self.low, self.high
        if self.log:
            values, low, high = np.log10(np.maximum(values, low)), math.log10(low), math.log10(high)
        clipped: np.ndarray = np.clip((values - low) / (high - low), 0, 1)
        return clipped

    def ticks(self) -> list[tuple[float, str]]:
        """(value, text) of each tick."""
        if self.marks:
            return [(mark, f"{mark:g}") for mark in self.marks if self.low <= mark <= self.high]
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [(10.0**power, self.text(10.0**power)) for power in powers]
        step = _nice_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [(number * step, self.text(number * step, step)) for number in range(first, last + 1)]

    def text(self, value: float, step: float = 0.0) -> str:
        """`value` as people write it on this axis; `step` fixes the decimals."""
        if self.unit == "percent":
            decimals = max(0, -math.floor(math.log10(100 * step) + 1e-9)) if step else 0
            return f"{100 * value:.{decimals}f}%" if value >= 0.01 or not self.log else f"{100 * value:g}%"
        if self.log:
            return f"{value:g}" if value >= 0.001 else f"1e{round(math.log10(value))}"
        decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 3
        if step >= 1000:
            return f"{value / 1000:g}k" if value else "0"
        return f"{value:.{min(decimals, 6)}f}" if decimals <= 4 else f"{value:.0e}"


@dataclass(frozen=True)
class Series:
    """One curve. style: CSS class of its colour ("s1" ...). filled: shade down to the axis."""

    label: str
    x: np.ndarray
    y: np.ndarray
    style: str
    filled: bool = False
    notes: Sequence[str] = ()  # beside each point when hovered, such as the threshold


@dataclass(frozen=True)
class Chart:
    """What the template draws; all positions in SVG units."""

    name: str
    title: str
    x: Axis
    y: Axis
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    curves: list[dict[str, Any]]
    width: int = WIDTH
    height: int = HEIGHT
    box: dict[str, float] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """What the page's script needs for hovering and for CSV."""
        return {
            "x": asdict(self.x),
            "y": asdict(self.y),
            "curves": [
                {key: curve[key] for key in ("label", "style", "points", "values", "notes")} for curve in self.curves
            ],
        }


def line_chart(name: str, title: str, series: Sequence[Series], x: Axis, y: Axis) -> Chart:
    """A chart of `series`; points outside the axes are clipped to their edge."""
    return Chart(
        name=name,
        title=title,
        x=x,
        y=y,
        x_ticks=[(_across(x, value), text) for value, text in x.ticks()],
        y_ticks=[(_down(y, value), text) for value, text in y.ticks()],
        curves=[_curve(one, x, y) for one in series],
        box={"left": LEFT, "top": TOP, "width": INNER_WIDTH, "height": INNER_HEIGHT},
    )


def nice_range(values: np.ndarray) -> tuple[float, float]:
    """A linear axis' ends around the finite `values`, on round numbers."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low == high:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    step = _nice_step((high - low) / 5)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _curve(one: Series, x: Axis, y: Axis) -> dict[str, Any]:
    across = LEFT + INNER_WIDTH * x.fractions(one.x)
    down = TOP + INNER_HEIGHT * (1 - y.fractions(one.y))
    points = np.stack([across, down], axis=1).round(1)
    path = "M" + "L".join(f"{a:g},{d:g}" for a, d in points)
    bottom = TOP + INNER_HEIGHT
    return {
        "label": one.label,
        "style": one.style,
        "path": path,
        "area": f"{path}L{points[-1, 0]:g},{bottom}L{points[0, 0]:g},{bottom}Z" if one.filled else "",
        "points": points.tolist(),
        "values": [[float(f"{a:.6g}"), float(f"{b:.6g}")] for a, b in zip(one.x, one.y, strict=True)],
        "notes": list(one.notes),
    }


def _across(axis: Axis, value: float) -> float:
    return round(LEFT + INNER_WIDTH * float(axis.fractions(np.array(value))), 1)


def _down(axis: Axis, value: float) -> float:
    return round(TOP + INNER_HEIGHT * (1 - float(axis.fractions(np.array(value)))), 1)


def _nice_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return float(next(power * factor for factor in (1, 2, 5, 10) if raw <= power * factor * (1 + 1e-9)))
