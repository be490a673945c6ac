"""The collected figures of one model on one benchmark."""

import dataclasses
import json

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.metrics.result import Trials, verify
from marginface.metrics.verification import consecutive_folds


@pytest.fixture
def pairs() -> dict[str, object]:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 4)
    centres = rng.normal(size=(40, 24))
    same = np.arange(200) % 20 < 10
    first = rng.integers(0, 160, 200)
    second = np.where(same, first // 4 * 4 + (first + 1) % 4, (first + 4 * rng.integers(1, 40, 200)) % 160)
    embeddings = centres[people] + 0.9 * rng.normal(size=(160, 24))
    trials = Trials("b", first, second, same, consecutive_folds(200), people)
    return {"embeddings": embeddings, "trials": trials}


def test_json_holds_every_figure_and_is_plain(pairs: dict[str, object]) -> None:
    result = verify(**pairs, model="m", xnorm=2.5, replicates=50)
    found = json.loads(json.dumps(result.to_json()))
    assert found["model"] == "m"
    assert found["pairs"] == {"same": 100, "different": 100}
    assert found["accuracy"]["mean"] == result.accuracy.mean
    assert len(found["accuracy"]["folds"]) == 10
    assert found["xnorm"] == 2.5
    low, high = found["accuracy"]["interval"]
    assert low <= result.accuracy.mean <= high
    supported = {tar["far"]: tar for tar in found["tar_at_far"]}
    assert supported[0.01]["tar"] is not None
    assert supported[0.001]["tar"] is None
    assert "1,000 different pairs" in supported[0.001]["reason"]


def test_worst_pairs_are_the_wrong_ones_worst_first(pairs: dict[str, object]) -> None:
    result = verify(**pairs, replicates=0)
    accepts, rejects = result.worst(same=False, count=5), result.worst(same=True, count=5)
    assert not result.trials.same[accepts].any()
    assert result.trials.same[rejects].all()
    assert (result.scores[accepts] >= result.threshold).all()
    assert (result.scores[rejects] < result.threshold).all()
    assert (np.diff(result.scores[accepts]) <= 0).all()
    assert (np.diff(result.scores[rejects]) >= 0).all()


def test_scale_does_not_matter_and_intervals_can_be_left_out(pairs: dict[str, object]) -> None:
    plain = verify(**pairs, replicates=0)
    pairs["embeddings"] = pairs["embeddings"] * np.linspace(0.1, 50, 160)[:, None]
    scaled = verify(**pairs, replicates=0)
    np.testing.assert_allclose(plain.scores, scaled.scores, atol=1e-12)
    assert plain.accuracy.mean == scaled.accuracy.mean
    assert plain.intervals is None


def test_too_few_embeddings_are_refused(pairs: dict[str, object]) -> None:
    with pytest.raises(InputError, match="needs"):
        verify(**{**pairs, "embeddings": pairs["embeddings"][:100]})
    with pytest.raises(InputError, match="the pairs name image"):
        verify(
            **{
                **pairs,
                "embeddings": pairs["embeddings"][:100],
                "trials": dataclasses.replace(pairs["trials"], subjects=None),
            }
        )


def test_folds_of_one_kind_leave_out_val_only(pairs: dict[str, object]) -> None:
    trials = pairs["trials"]
    order = np.argsort(~trials.same, kind="stable")
    sides = {key: getattr(trials, key)[order] for key in ("first", "second", "same")}
    pairs["trials"] = dataclasses.replace(trials, **sides)
    result = verify(**pairs, replicates=0)
    assert result.val is None
    assert result.to_json()["val_at_far_1e-3"] is None
    assert 0 <= result.accuracy.mean <= 1
