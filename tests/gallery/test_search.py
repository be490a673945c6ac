"""Exact search against the definition in float64."""

import numpy as np
import pytest
import torch

from marginface.gallery.search import BLOCK, Matrix


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("rounding", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 64, 65, 1000, BLOCK + 70])
def test_the_nearest_rows(rows: int, rounding: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if rounding and not torch.cpu._is_vnni_supported():
        pytest.skip("processor: no instructions for products of 8-bit numbers")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: rounding)
    random = np.random.default_rng(rows)
    vectors = unit(random.normal(size=(rows, 16)))
    probes = unit(np.vstack([random.normal(size=(5, 16)), vectors[-2:] + random.normal(0, 0.05, (min(rows, 2), 16))]))
    scores, found = Matrix(vectors).search(probes, 5)
    exact = probes.astype(np.float64) @ vectors.astype(np.float64).T
    count = min(5, rows)
    assert found.shape == scores.shape == (len(probes), count)
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :count], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, found, 1), scores, atol=1e-6)


def test_nothing_to_find() -> None:
    scores, rows = Matrix(np.empty((0, 8), np.float32)).search(np.ones((2, 8), np.float32))
    assert scores.shape == rows.shape == (2, 0)
    assert Matrix(np.ones((3, 8), np.float32)).search(np.empty((0, 8), np.float32))[0].shape == (0, 1)
