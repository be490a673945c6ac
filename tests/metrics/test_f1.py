"""F1 of pairs and of names, against scikit-learn."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from marginface.metrics.f1 import SWEEP, f1_sweep, macro_f1


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


def test_the_grid_is_that_of_the_table() -> None:
    assert len(SWEEP) == 150
    assert SWEEP[92] == 0.184
