"""The points the IJB scripts read TPR at FPR from, against scikit-learn: all of them, and those that decide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve as sklearn_roc

from marginface.metrics import reference_roc as module
from marginface.metrics.reference_roc import nearest_tar, reference_roc
from marginface.metrics.roc import Roc, roc_curve

FARS = (0.001, 0.01, 0.1, 0.3, 0.9)


def random_trials(pairs: int, levels: int, gap: float, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties or few, kinds of pair mixed or far apart, both present."""
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < share
    same[:2] = True, False
    return np.round(rng.normal(size=pairs) * levels) / levels + gap * same, same


trials = st.builds(
    random_trials,
    st.integers(2, 300),
    st.sampled_from([1, 10, 1000, 10**9]),
    st.sampled_from([0.0, 1.0, 3.0, 20.0]),
    st.sampled_from([0.01, 0.1, 0.5]),
    st.integers(0, 2**32 - 1),
)


def nearest(far: np.ndarray, tar: np.ndarray, target: float) -> float:
    """The scripts' rule in a loop."""
    return -min((abs(one - target), -one, -other) for one, other in zip(far, tar, strict=True))[2]


@settings(max_examples=200, deadline=None)
@given(trials)
def test_keeps_the_points_that_scikit_learn_keeps(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = drawn
    roc = reference_roc(scores, same)
    far, tar, thresholds = sklearn_roc(same, scores)
    np.testing.assert_array_equal(roc.far, far)
    np.testing.assert_array_equal(roc.tar, tar)
    np.testing.assert_array_equal(roc.thresholds, thresholds)
    assert roc.auc == roc_curve(scores, same).auc
    for target in FARS:
        assert nearest_tar(roc, target).tar == nearest(far, tar, target)


def in_buckets(scores: np.ndarray, same: np.ndarray, buckets: int) -> Roc:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SORTED", 0)
        patch.setattr(module, "BUCKETS", buckets)
        patch.setattr(module, "PART", 64)
        return reference_roc(scores, same, FARS)


@settings(max_examples=500, deadline=None)
@given(trials, st.sampled_from([1, 7, 100, 5000]))
def test_in_buckets_the_curve_and_the_nearest_points_stay(drawn: tuple[np.ndarray, np.ndarray], buckets: int) -> None:
    scores, same = drawn
    roc = in_buckets(scores, same, buckets)
    everything, exact = reference_roc(scores, same), roc_curve(scores, same)
    assert roc.auc == exact.auc
    at = np.searchsorted(-exact.thresholds, -roc.thresholds)
    np.testing.assert_array_equal(exact.thresholds[at], roc.thresholds)
    np.testing.assert_array_equal(exact.false_accepts[at], roc.false_accepts)
    np.testing.assert_array_equal(exact.true_accepts[at], roc.true_accepts)
    for target in FARS:
        assert nearest_tar(roc, target) == nearest_tar(everything, target)


def test_in_buckets_scores_that_cannot_be_told_apart_by_width_are_sorted() -> None:
    scores, same = np.array([1e-320, 0.0, 0.0, 1e-320]), np.array([True, False, True, False])
    np.testing.assert_array_equal(in_buckets(scores, same, 10).thresholds, [np.inf, 1e-320, 0.0])
    huge = np.array([1.7e308, -1.7e308])
    np.testing.assert_array_equal(in_buckets(huge, huge > 0, 10).thresholds, [np.inf, *huge])
