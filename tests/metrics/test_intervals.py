"""Bootstrap intervals: the vectorised replicates against loops over copies of pairs, and their coverage."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from marginface.metrics.intervals import Interval, pair_weights, verification_intervals
from marginface.metrics.roc import equal_error_rate, roc_curve, tar_at_far


def trials(
    seed: int, people: int = 40, pairs: int = 300
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == 0
    first = rng.integers(0, people, pairs)
    second = np.where(same, first, (first + rng.integers(1, people, pairs)) % people)
    return np.round(rng.normal(size=pairs) + 2 * same, 1), same, (first, second)


@pytest.mark.parametrize("by_person", [True, False])
def test_each_replicate_equals_the_figures_of_repeated_pairs(by_person: bool) -> None:
    """A pair of weight w is the same pair listed w times; accuracy keeps the share of same pairs."""
    scores, same, subjects = trials(0)
    correct = (scores > 1) == same
    people = subjects if by_person else None
    figures = []
    for weights in pair_weights(people, len(scores), 20, seed=3):
        for row in weights.astype(int):
            copied = np.repeat(np.arange(len(scores)), row)
            roc = roc_curve(scores[copied], same[copied])
            right = [np.mean(correct[copied][same[copied] == kind]) for kind in (True, False)]
            figures.append([np.mean(right), roc.auc, equal_error_rate(roc)[0], tar_at_far(roc, 0.1).tar])
            assert roc.auc == pytest.approx(roc_auc_score(same[copied], scores[copied]))
    expected = np.percentile(np.array(figures), [2.5, 97.5], axis=0).T
    found = verification_intervals(scores, same, correct, people, [0.1], replicates=20, seed=3)
    got = [found.accuracy, found.auc, found.eer, found.tar[0.1]]
    # scores are sorted before drawing by pair: the replicates agree in number, not in order
    if by_person:
        np.testing.assert_allclose([[one.low, one.high] for one in got], expected, atol=1e-6)
    assert found.by == ("subject" if by_person else "pair")
    assert found.units == (len(np.unique(subjects)) if by_person else len(scores))


def test_weights_of_people_multiply() -> None:
    first, second = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 2])
    blocks = list(pair_weights((first, second), 4, 50, seed=0))
    weights = np.concatenate(blocks)
    assert weights.shape == (50, 4)
    own, between, other, last = weights.T
    one = np.where(own > 0, between / np.maximum(own, 1), 0)  # times person 1 was drawn, where person 0 was
    np.testing.assert_array_equal(other[own > 0], (one * last)[own > 0])
    np.testing.assert_array_equal((own + one + last)[own > 0], 3)  # three people, three draws


def test_same_seed_same_interval() -> None:
    scores, same, subjects = trials(1)
    runs = [verification_intervals(scores, same, scores > 1, subjects, [0.1], 100, seed=5) for _ in range(2)]
    assert runs[0] == runs[1]


def test_without_errors_the_rule_of_three_bounds_the_interval() -> None:
    same = np.arange(100) % 2 == 0
    found = verification_intervals(same.astype(float), same, np.ones(100, bool), None, [0.1], 50)
    assert found.accuracy == Interval(0.97, 1.0)
    assert found.eer == Interval(0.0, 0.03)
    assert found.tar[0.1] == Interval(0.97, 1.0)


def test_intervals_cover_the_truth_when_people_differ() -> None:
    """Each person has an own shift: drawing people covers the true rate about 95 % of the time."""
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shift = rng.normal(size=60)
        person = np.repeat(np.arange(60), 10)
        other = (person + rng.integers(1, 60, 600)) % 60
        genuine = shift[person] + rng.normal(size=600)
        impostor = -10 + rng.normal(size=600)
        scores, same = np.concatenate([genuine, impostor]), np.arange(1200) < 600
        subjects = np.concatenate([person, person]), np.concatenate([person, other])
        correct = np.concatenate([genuine > 0, impostor < 0])
        bounds = verification_intervals(scores, same, correct, subjects, replicates=150, seed=seed).accuracy
        covered += bounds.low <= 0.75 <= bounds.high  # genuine > 0 half the time, impostors always right
    assert covered >= 33
