"""Results kept on disk come back with the same figures."""

from pathlib import Path

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.protocols.pairs import make_pairs, stored_pairs
from marginface.protocols.saved import load_results, save_results


def test_saved_results_are_the_same_results(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    people = make_pairs(np.repeat(np.arange(30), 5), folds=3, name="people")
    stored = stored_pairs(np.arange(40) % 4 < 2, "stored")
    results = [
        people.score(rng.normal(size=(len(people.images), 8)), "one", xnorm=2.0, replicates=20),
        stored.score(rng.normal(size=(80, 8)), "two", replicates=20),
    ]
    save_results(tmp_path / "scores.npz", results)
    again = load_results(tmp_path / "scores.npz", replicates=20)
    assert [one.to_json() for one in again] == [one.to_json() for one in results]
    assert again[0].trials.keys == results[0].trials.keys
    np.testing.assert_array_equal(again[0].correct, results[0].correct)
    assert again[1].trials.subjects is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    with pytest.raises(InputError, match="holds no results"):
        load_results(path)
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(InputError, match="holds no results"):
        load_results(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(InputError, match="holds no results"):
        load_results(path)
