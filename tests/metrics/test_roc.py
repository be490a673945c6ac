"""The ROC and what is read off it, against scikit-learn and against loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyeer import eer_stats
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from marginface.errors import InputError
from marginface.metrics.roc import corner_points, equal_error_rate, roc_curve, tar_at_far


def random_trials(pairs: int, levels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, both kinds of pair present."""
    rng = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == rng.integers(2)
    return rng.integers(0, levels, pairs) / levels + 0.3 * same.astype(float), rng.permutation(same)


trials = st.builds(random_trials, st.integers(2, 80), st.integers(1, 30), st.integers(0, 2**32 - 1))


@settings(max_examples=100, deadline=None)
@given(trials)
def test_agrees_with_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = drawn
    roc = roc_curve(scores, same)
    far, tar, thresholds = sklearn_roc(same, scores, drop_intermediate=False)
    np.testing.assert_array_equal(roc.far, far)
    np.testing.assert_array_equal(roc.tar, tar)
    np.testing.assert_array_equal(roc.thresholds, thresholds)
    assert roc.auc == pytest.approx(roc_auc_score(same, scores), abs=1e-13)


@settings(max_examples=100, deadline=None)
@given(trials, st.sampled_from([0.5, 0.2, 0.1, 0.03]))
def test_tar_at_far_is_the_best_threshold_that_keeps_the_far(drawn: tuple[np.ndarray, np.ndarray], far: float) -> None:
    scores, same = drawn
    found = tar_at_far(roc_curve(scores, same), far)
    if far * np.sum(~same) < 1:
        assert found.tar is None
        assert found.threshold is None
        assert "different pairs" in found.reason
        return
    cuts = [cut for cut in [np.inf, *np.unique(scores)] if np.mean(scores[~same] >= cut) <= far]
    assert found.tar == max(np.mean(scores[same] >= cut) for cut in cuts)
    assert np.mean(scores[~same] >= found.threshold) <= far
    assert found.false_accepts == np.sum(scores[~same] >= found.threshold)


def test_a_far_of_whole_pairs_is_met_exactly() -> None:
    scores = np.concatenate([np.arange(3000) / 3000, np.ones(10)])
    roc = roc_curve(scores, np.arange(3010) >= 3000)
    assert tar_at_far(roc, 1e-3).false_accepts == 3
    assert tar_at_far(roc, 1e-4).reason == "needs at least 10,000 different pairs, there are 3,000"


@settings(max_examples=100, deadline=None)
@given(trials)
def test_equal_error_rate_lies_where_the_errors_cross(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    roc = roc_curve(*drawn)
    rate, threshold = equal_error_rate(roc)
    # the polyline through the ROC passes through (rate, 1 - rate)
    crossed = np.interp(np.linspace(0, len(roc.far) - 1, 20001), np.arange(len(roc.far)), roc.far)
    other = np.interp(np.linspace(0, len(roc.far) - 1, 20001), np.arange(len(roc.far)), roc.tar)
    nearest = np.argmin(np.hypot(crossed - rate, other - (1 - rate)))
    assert np.hypot(crossed[nearest] - rate, other[nearest] - (1 - rate)) < 0.01
    assert 0 <= rate <= 1
    assert threshold in roc.thresholds


def test_perfect_and_constant_scores() -> None:
    same = np.array([True, True, False, False])
    perfect = roc_curve(np.array([0.9, 0.8, 0.2, 0.1]), same)
    assert (perfect.auc, equal_error_rate(perfect)[0]) == (1.0, 0.0)
    assert equal_error_rate(perfect)[1] == 0.8
    constant = roc_curve(np.zeros(4), same)
    assert (constant.auc, equal_error_rate(constant)[0]) == (0.5, 0.5)


def test_corner_points_draw_the_same_curve() -> None:
    rng = np.random.default_rng(1)
    same = rng.random(20000) < 0.3
    roc = roc_curve(rng.normal(size=20000) + 2 * same, same)
    kept = corner_points(roc)
    assert len(kept) <= 400
    assert kept[0] == 0
    assert kept[-1] == len(roc.far) - 1
    grid = np.logspace(-3, 0, 500)
    full, drawn = np.interp(grid, roc.far, roc.tar), np.interp(grid, roc.far[kept], roc.tar[kept])
    assert np.max(np.abs(full - drawn)) < 0.01


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, np.nan, np.inf], [True, False, True], "2 of 3 scores are not finite .first: pair 1"),
        ([0.1, 0.2], [True, True], "none of the 2 pairs is a 'different' pair"),
        ([0.1, 0.2], [False, False], "none of the 2 pairs is a 'same' pair"),
        ([0.1, 0.2], [False], r"\(2,\) scores do not match \(1,\)"),
    ],
)
def test_unusable_trials_are_refused(scores: list[float], same: list[bool], message: str) -> None:
    with pytest.raises(InputError, match=message):
        roc_curve(np.array(scores), np.array(same))


def test_a_far_outside_its_range_is_refused() -> None:
    roc = roc_curve(np.array([0.0, 1.0]), np.array([False, True]))
    with pytest.raises(InputError, match="FAR must lie in"):
        tar_at_far(roc, 0.0)


@pytest.mark.filterwarnings("ignore:It is possible that you had set the wrong score")  # AUC below a half
@settings(max_examples=50, deadline=None)
@given(trials)
def test_agrees_with_pyeer(case: tuple[np.ndarray, np.ndarray]) -> None:
    """Its FMR and FNMR at every distinct score, and its AUC (which lacks the segment from accepting nothing)."""
    scores, same = case
    ours = roc_curve(scores, same)
    thresholds, fmr, fnmr = eer_stats.calculate_roc(scores[same], scores[~same])
    np.testing.assert_array_equal(ours.thresholds[1:], thresholds[::-1])
    np.testing.assert_allclose(ours.far[1:], fmr[::-1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(1 - ours.tar[1:], fnmr[::-1], rtol=0, atol=1e-12)
    first = fmr[-1] * (1 - fnmr[-1]) / 2
    assert ours.auc == pytest.approx(eer_stats.calculate_roc_auc(np.append(fmr, 0), np.append(fnmr, 1)), abs=1e-12)
    assert eer_stats.calculate_roc_auc(fmr, fnmr) == pytest.approx(ours.auc - first, abs=1e-12)


def test_eer_lies_in_the_interval_of_pyeer() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        same = np.arange(2000) % 2 == 0
        scores = rng.normal(size=2000) + 2 * same
        _, fmr, fnmr = eer_stats.calculate_roc(scores[same], scores[~same])
        _, low, high, middle = eer_stats.get_eer_values(fmr, fnmr)
        found, _ = equal_error_rate(roc_curve(scores, same))
        assert low - 1e-12 <= found <= high + 1e-12
        assert found == pytest.approx(middle, abs=1e-3)
