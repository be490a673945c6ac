"""F1 of pairs and of names, against scikit-learn."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from marginface.metrics.compare import compare_best_f1
from marginface.metrics.f1 import SWEEP, best_f1_replicates, f1_sweep, macro_f1
from marginface.metrics.intervals import pair_weights


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 40), st.integers(0, 2**32 - 1))
def test_sweep_agrees_with_scikit_learn(pairs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == 0
    scores = np.round(rng.uniform(0, 0.2, pairs) + 0.1 * same, 2)
    swept = f1_sweep(scores, same, SWEEP[::10])
    for i, threshold in enumerate(swept.thresholds):
        named = scores > threshold
        assert swept.accuracy[i] == accuracy_score(same, named)
        assert swept.precision[i] == precision_score(same, named, zero_division=0)
        assert swept.recall[i] == recall_score(same, named)
        assert np.isclose(swept.f1[i], f1_score(same, named), rtol=1e-14)
    exact = f1_sweep(scores, same)
    assert exact.f1[exact.best] >= swept.f1.max()
    assert np.isclose(exact.f1[exact.best], f1_score(same, scores > exact.thresholds[exact.best]), rtol=1e-14)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_macro_f1_agrees_with_scikit_learn(images: int, people: int, seed: int) -> None:
    truth, named = np.random.default_rng(seed).integers(0, people, (2, images))
    assert np.isclose(macro_f1(truth, named), f1_score(truth, named, average="macro"), rtol=1e-13)


@settings(max_examples=10, deadline=None)
@given(st.integers(4, 12), st.integers(0, 2**32 - 1))
def test_replicates_agree_with_scikit_learns_weighted_f1(people: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(2 * people, 1)
    sides = first // 2, second // 2
    same = sides[0] == sides[1]
    scores = np.round(rng.uniform(0, 0.5, len(same)) + 0.3 * same, 2)
    found = best_f1_replicates(scores, same, sides, 5, seed)
    for value, weights in zip(found, next(pair_weights(sides, len(same), 5, seed)), strict=True):
        totals = np.where(same, weights @ same, weights @ ~same)
        if not totals.all():
            assert np.isnan(value)
            continue
        weights = weights * np.where(same, same.sum(), (~same).sum()) / totals
        every = [f1_score(same, scores >= cut, sample_weight=weights) for cut in np.unique(scores)]
        assert np.isclose(value, max(every), rtol=1e-12)


def test_compared_models_share_the_drawn_people() -> None:
    rng = np.random.default_rng(3)
    first, second = np.triu_indices(60, 1)
    people = first // 3, second // 3
    same = people[0] == people[1]
    weak = rng.normal(0, 1, len(same)) + 2 * same
    found = compare_best_f1("set", ("a", "b"), (weak, weak + 0.1), same, people, 100)
    assert found.differences["best F1"][1].low == found.differences["best F1"][1].high == 0
    assert (found.only_first, found.only_second, found.p_value) == (0, 0, 1)
    better = compare_best_f1("set", ("a", "b"), (weak, weak + 3 * same), same, people, 100)
    difference, interval = better.differences["best F1"]
    assert 0 < interval.low <= difference <= interval.high
    assert better.only_second > better.only_first


def test_the_grid_is_that_of_the_table() -> None:
    assert len(SWEEP) == 150
    assert SWEEP[92] == 0.184
