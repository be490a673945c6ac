"""Draws docs/images/margins-*.svg from the margins themselves: target logit and loss gradient over the angle.

`python docs/pictures/margins.py` writes them, `tests/docs/test_pictures.py` holds the committed ones against it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from marginface.margins import Margin, create_margin

IMAGES = Path(__file__).parent.parent / "images"
CLASSES, ALIKE = 10_000, 70.0  # all other classes are at 90°, but for one at 70°
ANGLES = np.arange(1.0, 180.0)
COLOURS = ("#3b82f6", "#ef4444", "#10b981", "#f59e0b", "#a855f7", "#8b8b8b")
WIDTH, HEIGHT, LEFT, TOP, PANEL = 760, 350, 46, 30, 320


@dataclass(frozen=True)
class Curve:
    """One margin with its options, for embeddings of length `norm`.

    unit: what logits are divided by, instead of s. state: what training would have brought its buffers to.
    """

    label: str
    name: str
    options: Mapping[str, Any]
    norm: float = 20.0
    unit: float = 0.0
    state: Mapping[str, float] = field(default_factory=dict)


def plain(*names: str) -> list[Curve]:
    return [Curve(name, name, {}) for name in names]


def elastic(name: str, m: float, std: float) -> list[Curve]:
    """The ends of its random margins."""
    ends = ((-2, "smallest"), (2, "largest"))
    return [Curve(f"{name}, {word} m", name, {"m": m + k * std, "std": 0.0}) for k, word in ends]


FAMILIES: dict[str, tuple[str, list[Curve]]] = {
    "fixed": (
        "The same margin for everybody",
        [
            *plain("normface", "cosface", "arcface", "combined"),
            Curve("sphereface, λ 5, ‖x‖ 30", "sphereface", {"lambda_base": 5}, norm=30.0),
            *plain("sphereface-r"),
        ],
    ),
    "quality": (
        "The margin follows the length of the embedding",
        [
            *[Curve(f"adaface, z = {z:g}", "adaface", {}, 20.0 + 15 * z, state={"batch_std": 5.0}) for z in (-1, 0, 1)],
            *[Curve(f"magface, ‖x‖ {norm}", "magface", {}, norm=float(norm)) for norm in (10, 60, 110)],
        ],
    ),
    "random": (
        "The margin is drawn at random (95 % lie between)",
        [
            *elastic("elasticface-arc", 0.5, 0.05),
            *plain("elasticface-arc-plus"),
            *elastic("elasticface-cos", 0.35, 0.05),
            *plain("elasticface-cos-plus"),
        ],
    ),
    "others": (
        "The other classes are bent too",
        plain("sv-softmax", "mv-softmax", "arcnegface", "circle", "curricularface"),
    ),
    "bare": (
        "No margin, scale found by itself, and yes-or-no losses",
        [
            Curve("softmax, ‖w‖·‖x‖ 20", "softmax", {}, unit=20.0),
            *plain("adacos", "sphereface2", "uniface"),
        ],
    ),
}


def curve_values(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """(target logit / s, |d loss / d θ| / s in 1/rad) at ANGLES, float64 each."""
    count = {"num_classes": CLASSES} if curve.name in ("adacos", "sphereface2") else {}
    margin = create_margin(curve.name, **count, **curve.options).double().eval()
    for name, value in curve.state.items():
        margin.get_buffer(name).fill_(value)
    theta = torch.tensor(np.radians(ANGLES), dtype=torch.float64, requires_grad=True)
    others = torch.zeros(len(ANGLES), CLASSES - 1, dtype=torch.float64)
    others[:, 0] = math.cos(math.radians(ALIKE))
    cos = torch.cat([theta.cos()[:, None], others], 1) * (curve.unit or 1.0)
    labels = torch.zeros(len(ANGLES), dtype=torch.int64)
    if isinstance(margin, Margin):
        norms = torch.full((len(ANGLES),), curve.norm, dtype=torch.float64)
        logits, scale = margin(cos, labels, norms), curve.unit or float(margin.row_scale(norms)[0])
        loss, shown = F.cross_entropy(logits, labels, reduction="sum"), logits[:, 0] / scale
    else:
        logits, scale = margin(cos, labels), margin.scale
        loss = margin.loss(logits, labels) * len(ANGLES)
        shown = (logits[:, 0] - margin.bias[0]) / scale
    (gradient,) = torch.autograd.grad(loss, theta)
    return shown.detach().numpy(), gradient.abs().numpy() / scale


def panel(
    left: float,
    title: str,
    curves: list[np.ndarray],
    low: float,
    high: float,
    tick: float,
    text: Callable[[float], str],
) -> list[str]:
    """Axes, ticks and one path a curve."""
    inner_width, inner_height = PANEL - 20, 230

    def across(angle: float) -> float:
        return left + inner_width * angle / 180

    def down(value: float) -> float:
        return TOP + inner_height * (1 - (value - low) / (high - low))

    lines = [f'<text class="t" x="{left}" y="{TOP - 12}">{escape(title)}</text>']
    for value in np.arange(math.ceil(low / tick) * tick, high + tick / 100, tick):
        y = f"{down(value):.1f}"
        lines.append(f'<path class="g" d="M{left},{y}H{left + inner_width}"/>')
        lines.append(f'<text class="e" x="{left - 6}" y="{float(y) + 4:.1f}">{text(value)}</text>')
    for angle in range(0, 181, 30):
        x, bottom = f"{across(angle):.1f}", TOP + inner_height
        lines.append(f'<path class="g" d="M{x},{TOP}V{bottom}"/>')
        lines.append(f'<text class="m" x="{x}" y="{bottom + 16}">{angle}°</text>')
    for number, values in enumerate(curves):
        points = zip(ANGLES, values, strict=True)
        path = "L".join(f"{across(angle):.1f},{down(value):.1f}" for angle, value in points if low <= value <= high)
        lines.append(f'<path class="c" stroke="{COLOURS[number]}" d="M{path}"/>')
    return lines


STYLE = """<style>
text{font:12px system-ui,sans-serif;fill:#333}.t{font-weight:600}.e{text-anchor:end}.m{text-anchor:middle}
.g{stroke:#8888;stroke-width:.5}.c{fill:none;stroke-width:2;stroke-linejoin:round}
@media (prefers-color-scheme:dark){text{fill:#ddd}}
</style>"""


def draw(title: str, curves: list[Curve]) -> str:
    """One SVG: on the left the target's logit, on the right the gradient, below what the colours are."""
    values = [curve_values(curve) for curve in curves]
    steepest = math.ceil(4 * max(gradient.max() for _, gradient in values)) / 4
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        STYLE,
        *panel(LEFT, "target logit / s over θ", [one for one, _ in values], -2.0, 1.0, 0.5, "{:g}".format),
        *panel(
            LEFT + PANEL + 60,
            "|d loss / d θ| / s over θ",
            [one for _, one in values],
            0.0,
            steepest,
            0.25,
            "{:g}".format,
        ),
    ]
    for number, curve in enumerate(curves):
        x, y = LEFT + 235 * (number % 3), HEIGHT - 34 + 20 * (number // 3)
        lines.append(f'<path class="c" stroke="{COLOURS[number]}" d="M{x},{y - 4}h18"/>')
        lines.append(f'<text x="{x + 24}" y="{y}">{escape(curve.label)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def pictures() -> dict[str, str]:
    """File name -> SVG."""
    return {f"margins-{name}.svg": draw(title, curves) for name, (title, curves) in FAMILIES.items()}


if __name__ == "__main__":
    for file, svg in pictures().items():
        (IMAGES / file).write_text(svg, encoding="utf-8")
        print(IMAGES / file)
