"""Alignment against the definition: a similarity is recovered exactly, and is least squares where it cannot be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginface.faces.fit import fit
from marginface.faces.template import ARCFACE_112, crop_face, face_shape, similarity, template


@given(st.floats(-3, 3), st.floats(0.1, 10), st.floats(-300, 300), st.floats(-300, 300))
def test_a_similarity_is_recovered_exactly(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    photographed = (ARCFACE_112 - [x, y]) @ np.linalg.inv(turn).T
    np.testing.assert_allclose(similarity(photographed, ARCFACE_112), np.column_stack([turn, [x, y]]), atol=1e-7)


@given(st.integers(0, 2**32 - 1))
def test_it_is_the_least_squares_solution(seed: int) -> None:
    """The four unknowns of a similarity are linear: numpy's solver must find the same."""
    random = np.random.default_rng(seed)
    points, target = random.uniform(0, 250, (5, 2)), random.uniform(0, 112, (5, 2))
    ones, zeros = np.ones(5), np.zeros(5)
    rows = np.vstack([
        np.column_stack([points[:, 0], -points[:, 1], ones, zeros]),
        np.column_stack([points[:, 1], points[:, 0], zeros, ones]),
    ])  # fmt: skip
    a, b, x, y = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity(points, target), [[a, -b, x], [b, a, y]], rtol=1e-6, atol=1e-8)


def test_sizes_as_insightface_has_them() -> None:
    np.testing.assert_allclose(template(224), ARCFACE_112 * 2)
    np.testing.assert_allclose(template(128), ARCFACE_112 + np.array([8, 0]))
    np.testing.assert_allclose(template(256), (ARCFACE_112 + np.array([8, 0])) * 2)


def test_points_land_on_the_template() -> None:
    photograph = np.zeros((250, 250, 3), np.uint8)
    points = ARCFACE_112 * 1.2 + [60, 40]
    for x, y in points:
        photograph[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 255
    face = crop_face(photograph, points)
    assert face.shape == (112, 112, 3)
    assert all(face[round(y), round(x)].min() > 200 for x, y in ARCFACE_112)
    assert (face[:10] == 0).all()


def test_coinciding_points_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2)), ARCFACE_112)


def test_the_published_numbers_of_the_other_templates() -> None:
    np.testing.assert_allclose(template(112, "arcface96")[0], [30.2946, 51.6963])
    assert face_shape(224, "arcface96") == (224, 192)
    np.testing.assert_allclose(template(200, "openvino")[0], [200 * 30.2946 / 96, 200 * 51.6963 / 112])
    np.testing.assert_allclose(template(128, "openvino")[4], [128 * 62.7299 / 96, 128 * 92.2041 / 112])


@given(st.integers(0, 2**32 - 1))
def test_fit_says_what_was_done_to_the_points(seed: int) -> None:
    random = np.random.default_rng(seed)
    scale, angle, shift = random.uniform(0.3, 3), random.uniform(-3, 3), random.uniform(-50, 200, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    found = fit((ARCFACE_112 - shift) @ np.linalg.inv(turn).T, (10**6, 10**6), 112)
    np.testing.assert_allclose([found.residual, found.enlarged], [0, scale], atol=1e-6)
    noisy = fit(ARCFACE_112 + random.normal(0, 3, (5, 2)), (112, 112), 112)
    assert 0.001 < noisy.residual < 0.1
    assert 0 <= noisy.outside < 0.5


def test_half_a_face_outside() -> None:
    assert fit(ARCFACE_112 - [56, 0], (112, 112), 112).outside == pytest.approx(0.5, abs=0.03)
