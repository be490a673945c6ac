"""Ten-fold accuracy and VAL@FAR against the reference's numbers and against loops over every threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import golden_files
from marginface.errors import InputError
from marginface.metrics.verification import (
    GRID,
    check_embeddings,
    consecutive_folds,
    exact_accuracy,
    grid_accuracy,
    squared_distances,
    val_at_far,
)

GOLDEN = golden_files.entries("verification/")


def pairs_of(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Squared distances of the golden embeddings as they lie there, same flags, folds."""
    embeddings = arrays.get("embeddings", arrays.get("embeddings_fused"))
    count = len(arrays["issame"])
    index = 2 * np.arange(count)
    distances = squared_distances(embeddings, index, index + 1, normalise=False)
    return distances, arrays["issame"], consecutive_folds(count)


@pytest.mark.parametrize("name", GOLDEN)
def test_accuracy_is_the_reference_figure(name: str) -> None:
    expected = golden_files.arrays(name)
    accuracy, roc = grid_accuracy(*pairs_of(expected))
    np.testing.assert_array_equal(accuracy.accuracies, expected["accuracy"])
    np.testing.assert_array_equal(accuracy.thresholds, expected["best_thresholds"])
    np.testing.assert_array_equal(roc.tar, expected["tpr"])
    np.testing.assert_array_equal(roc.far, expected["fpr"])
    assert accuracy.mean == expected["acc_mean"]
    assert accuracy.std == expected["acc_std"]
    assert accuracy.threshold == pytest.approx(expected["best_threshold_mean"], abs=1e-15)


@pytest.mark.parametrize("name", GOLDEN)
def test_val_at_far_is_the_reference_figure(name: str) -> None:
    expected = golden_files.arrays(name)
    if "val" not in expected:
        with pytest.raises(InputError, match="one kind only"):
            val_at_far(*pairs_of(expected))
        return
    found = val_at_far(*pairs_of(expected))
    np.testing.assert_allclose(
        [found.val, found.std, found.far], [expected[key] for key in ("val", "val_std", "far")], atol=1e-12
    )
    for key in expected:
        if key.startswith("val_std_far_at_far_"):
            found = val_at_far(*pairs_of(expected), far=float(key.removeprefix("val_std_far_at_far_")))
            np.testing.assert_allclose([found.val, found.std, found.far], expected[key], atol=1e-12)


@pytest.mark.parametrize("name", [name for name in GOLDEN if "flip" in name])
def test_flip_fusion_and_embedding_length(name: str) -> None:
    expected = golden_files.arrays(name)
    passes = expected["embeddings_original"], expected["embeddings_flipped"]
    index = 2 * np.arange(len(expected["issame"]))
    distances = squared_distances(passes[0] + passes[1], index, index + 1)
    accuracy, _ = grid_accuracy(distances, expected["issame"], consecutive_folds(len(index)))
    assert accuracy.mean == expected["test_acc2"]
    assert accuracy.std == expected["test_std2"]


def best_by_loop(distances: np.ndarray, same: np.ndarray) -> float:
    """The most pairs any threshold can judge right."""
    cuts = [-1.0, *np.unique(distances), np.inf]
    return max(np.mean((distances < cut) == same) for cut in cuts)


@settings(max_examples=50, deadline=None)
@given(st.integers(20, 60), st.integers(1, 12), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_exact_thresholds_are_the_best_on_the_other_folds(pairs: int, levels: int, folds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, levels + 1, pairs) / levels * 4  # many ties
    same = rng.random(pairs) < 0.5
    parts = consecutive_folds(pairs, folds)
    found = exact_accuracy(distances, same, parts)
    for number, part in enumerate(parts):
        train = np.setdiff1d(np.arange(pairs), part)
        reached = np.mean((distances[train] < found.thresholds[number]) == same[train])
        assert reached == best_by_loop(distances[train], same[train])
        assert found.accuracies[number] == np.mean((distances[part] < found.thresholds[number]) == same[part])


@settings(max_examples=50, deadline=None)
@given(st.integers(10, 50), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_grid_accuracy_equals_a_plain_loop(pairs: int, folds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances = np.round(rng.uniform(0, 4.2, pairs), 2)  # on the grid, and beyond its end
    same = rng.random(pairs) < 0.5
    parts = [np.sort(part) for part in np.array_split(rng.permutation(pairs), folds)]  # folds need not be runs
    found, _ = grid_accuracy(distances, same, parts)
    for number, part in enumerate(parts):
        train = np.setdiff1d(np.arange(pairs), part)
        scores = [np.mean((distances[train] < cut) == same[train]) for cut in GRID]
        assert found.thresholds[number] == GRID[int(np.argmax(scores))]
        assert found.accuracies[number] == np.mean((distances[part] < found.thresholds[number]) == same[part])


def test_similarity_is_the_cosine_of_the_squared_distance() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(300, 16)).astype(np.float32)
    first, second = rng.integers(0, 300, (2, 400))
    unit = embeddings / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    cosines = np.sum(unit[first] * unit[second], axis=1)
    np.testing.assert_allclose(1 - squared_distances(embeddings, first, second) / 2, cosines, atol=1e-12)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_unusable_embeddings_are_named_and_counted(value: float, word: str) -> None:
    embeddings = np.ones((6, 4), np.float32)
    embeddings[[2, 4]] = value
    with pytest.raises(InputError, match=f"2 of 6 embeddings are {word} .first: row 2"):
        check_embeddings(embeddings)
    with pytest.raises(InputError, match=word):
        squared_distances(embeddings, np.arange(5), np.arange(1, 6))


def test_a_wrong_number_of_embeddings_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(6, 4\).*needs \(7, D\)"):
        check_embeddings(np.ones((6, 4)), 7)
    with pytest.raises(InputError, match="3 pairs cannot be split into 10 folds"):
        consecutive_folds(3)


@pytest.mark.parametrize("name", [name for name in GOLDEN if "auc" in golden_files.entry(name)["arrays"]])
def test_grid_auc_and_eer_are_the_reference_figures(name: str) -> None:
    expected = golden_files.arrays(name)
    _, roc = grid_accuracy(*pairs_of(expected))
    assert roc.auc == pytest.approx(float(expected["auc"]), abs=1e-9)
    if "eer" in expected:
        assert roc.eer == pytest.approx(float(expected["eer"]), abs=1e-9)
    else:
        assert roc.eer is None
