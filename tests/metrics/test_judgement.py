"""What follows from scores: rejecting by quality, groups of people, comparing models, advising thresholds."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from marginface.errors import InputError
from marginface.metrics.advice import advise_threshold
from marginface.metrics.compare import compare, mcnemar
from marginface.metrics.groups import group_table
from marginface.metrics.reject import pair_quality, reject_curve
from marginface.metrics.result import Trials, VerificationResult, verify_distances
from marginface.metrics.roc import roc_curve, tar_at_far
from marginface.metrics.verification import consecutive_folds


def result(noise: float, model: str = "m", pairs: int = 2000) -> VerificationResult:
    rng = np.random.default_rng(0)
    same = np.arange(pairs) % 20 < 10
    subjects = np.arange(300)
    first = rng.integers(0, 300, pairs)
    second = np.where(same, first, (first + rng.integers(1, 300, pairs)) % 300)
    distances = np.where(same, 0.8, 1.9) + noise * rng.normal(size=pairs)
    trials = Trials("b", first, second, same, consecutive_folds(pairs), subjects)
    return verify_distances(distances, trials, model=model, replicates=0)


def test_rejecting_by_a_telling_quality_lowers_the_error() -> None:
    rng = np.random.default_rng(1)
    same = np.arange(8000) % 2 == 0
    quality = rng.uniform(0.1, 1, 8000)
    scores = np.where(same, 0.8 * quality, 0) + 0.1 * rng.normal(size=8000)
    telling = reject_curve(scores, same, quality, fmr=1e-2)
    blind = reject_curve(scores, same, rng.permutation(quality), fmr=1e-2)
    assert telling.fnmr[0] == blind.fnmr[0]
    assert telling.fnmr[10] < blind.fnmr[10] / 2
    fixed = reject_curve(scores, same, quality, fmr=1e-2, fixed=True)
    order = np.argsort(quality, kind="stable")[int(0.5 * 8000) :]
    threshold = tar_at_far(roc_curve(scores, same), 1e-2).threshold
    assert fixed.fnmr[10] == np.mean(scores[order][same[order]] < threshold)
    assert fixed.genuines[10] + fixed.impostors[10] == 4000


def test_rejecting_stops_where_the_pairs_run_out() -> None:
    rng = np.random.default_rng(1)
    same = np.arange(2200) % 2 == 0
    curve = reject_curve(rng.normal(size=2200), same, rng.random(2200), fmr=1e-3)
    assert np.isfinite(curve.fnmr[0])
    assert np.isnan(curve.fnmr[-1])
    with pytest.raises(InputError, match=r"FMR 1e-05 needs at least 100,000"):
        reject_curve(rng.normal(size=2200), same, rng.random(2200), fmr=1e-5)
    with pytest.raises(InputError, match="quality values"):
        reject_curve(rng.normal(size=2200), same, np.full(2200, np.nan))
    assert pair_quality(np.array([3.0, 1.0, 2.0]), np.array([0, 2]), np.array([1, 0])).tolist() == [1.0, 2.0]


def test_groups_are_rated_at_one_threshold() -> None:
    scores = np.array([0.9, 0.1, 0.8, 0.7, 0.9, 0.2, 0.1, 0.6, 0.9])
    same = np.array([True, True, False, False, True, True, False, False, True])
    first = np.array(["a", "a", "a", "a", "b", "b", "b", "b", ""])
    second = np.array(["a", "a", "a", "b", "b", "b", "b", "b", ""])
    table = group_table(scores, same, (first, second), None, 0.5, column="g", replicates=100)
    a, b = table.groups
    assert (a.group, a.genuines, a.impostors, a.fnmr, a.fmr) == ("a", 2, 1, 0.5, 1.0)
    assert (b.group, b.genuines, b.impostors, b.fnmr, b.fmr) == ("b", 2, 2, 0.5, 0.5)
    assert (table.worst_fnmr, table.worst_fmr, table.left_out) == (1.0, 2.0, 2)
    assert a.fnmr_interval.low <= 0.5 <= a.fnmr_interval.high
    with pytest.raises(InputError, match="no pair has two images of a known 'g'"):
        group_table(scores, same, (first, np.full(9, "c")), None, 0.5, column="g")


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (3, 9), (40, 41), (100, 160), (900, 700)])
def test_mcnemar_agrees_with_the_binomial_test(only_first: int, only_second: int) -> None:
    found = mcnemar(only_first, only_second)
    expected = stats.binomtest(only_first, only_first + only_second).pvalue if only_first else 1.0
    assert found == pytest.approx(expected, rel=1e-9)


def test_comparing_finds_the_better_model_and_nothing_between_equals() -> None:
    worse, better = result(0.6, "worse"), result(0.4, "better")
    found = compare(worse, better, replicates=100)
    assert found.only_second > found.only_first
    assert found.p_value < 1e-3
    difference, bounds = found.differences["auc"]
    assert difference == pytest.approx(better.auc - worse.auc)
    assert 0 < bounds.low < difference < bounds.high
    assert found.differences["eer"][1].high < 0
    same = compare(worse, dataclasses.replace(worse, model="copy"), replicates=50)
    assert same.p_value == 1
    assert all(value == (0, same.differences["auc"][1]) for value in same.differences.values())
    assert (same.differences["accuracy"][1].low, same.differences["accuracy"][1].high) == (0, 0)


def test_comparing_wants_the_same_pairs() -> None:
    with pytest.raises(InputError, match="not measured on the same pairs"):
        compare(result(0.5), result(0.5, pairs=1000))


def test_advice_keeps_the_far_and_bounds_it() -> None:
    one = result(0.5)
    kept = json.loads(json.dumps(one.to_json()))
    advice = advise_threshold(kept, 0.01)
    impostors = one.scores[~one.trials.same]
    assert np.mean(impostors >= advice.threshold) == advice.measured <= 0.01
    events = round(advice.measured * 1000)
    assert advice.highest_far == pytest.approx(stats.beta.ppf(0.975, events + 1, 1000 - events), rel=1e-6)
    assert advice.tar == np.mean(one.scores[one.trials.same] >= advice.threshold)
    assert advice.to_json()["benchmark"] == "b"
    with pytest.raises(InputError, match=r"FAR 0.0001 on b needs at least 10,000 different pairs, there are 1,000"):
        advise_threshold(kept, 1e-4)
    with pytest.raises(InputError, match=r"holds no ROC"):
        advise_threshold({"model": "x"}, 0.1)
