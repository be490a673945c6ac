"""The committed pictures of the margins are what their script draws, of every margin there is."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from marginface.margins import list_margins

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def margins() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_margins", DOCS / "pictures" / "margins.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def curves(svg: str) -> list[np.ndarray]:
    return [np.array(re.findall(r"[-\d.]+", path), float) for path in re.findall(r' d="(M[^"]*L[^"]*)"', svg)]


def test_the_committed_pictures_are_drawn_by_the_script(margins: ModuleType) -> None:
    text = (DOCS / "margins.md").read_text(encoding="utf-8")
    for name, svg in margins.pictures().items():
        committed = (DOCS / "images" / name).read_text(encoding="utf-8")
        assert len(curves(svg)) == len(curves(committed)) >= 8
        for drawn, kept in zip(curves(svg), curves(committed), strict=True):
            assert drawn.shape == kept.shape
            assert np.abs(drawn - kept).max() <= 0.1 + 1e-9  # of a pixel: the last digit, on another machine
        assert re.sub(r"[-\d.]+", "", svg) == re.sub(r"[-\d.]+", "", committed)
        assert len(committed) < 100_000
        assert f"images/{name}" in text


def test_every_margin_is_drawn(margins: ModuleType) -> None:
    drawn = {curve.name for _, family in margins.FAMILIES.values() for curve in family}
    assert drawn == set(list_margins())


def test_the_curves_are_the_papers(margins: ModuleType) -> None:
    """ArcFace is cos(θ + m), and its loss is that of a softmax over the other classes, in closed form."""
    theta = np.radians(margins.ANGLES)
    target, gradient = margins.curve_values(margins.Curve("arcface", "arcface", {"margin_grad": "true"}))
    np.testing.assert_allclose(target, np.cos(theta + 0.5), atol=1e-12)
    others = (margins.CLASSES - 2) + np.exp(64 * np.cos(np.radians(margins.ALIKE)))
    share = others / (others + np.exp(64 * np.cos(theta + 0.5)))
    np.testing.assert_allclose(gradient, share * np.abs(np.sin(theta + 0.5)), atol=1e-9)
