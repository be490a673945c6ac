"""MagFace's and OpenVINO's ten-fold figures against the numbers their own scripts print."""

import numpy as np
import pytest

import golden_files
from marginface.errors import InputError
from marginface.metrics.variants import magface_accuracy, openvino_lfw
from marginface.metrics.verification import consecutive_folds, squared_distances

NAMES = [name for name in golden_files.entries("verification/") if "openvino_log" in golden_files.entry(name)]


@pytest.mark.parametrize("name", NAMES)
def test_openvino_report(name: str) -> None:
    expected = golden_files.arrays(name)
    found = openvino_lfw(expected["ov_scores"], expected["issame"])
    assert found.lines() == golden_files.entry(name)["openvino_log"]
    for key, value in {
        "same_acc": np.mean(found.same),
        "diff_acc": np.mean(found.different),
        "mean_acc": np.mean(found.fold_accuracies),
        "std": np.std(found.fold_accuracies),
        "fold_acc": found.fold_accuracies,
        "auc": found.auc,
        "fold_thresholds": found.thresholds,
        "threshold": np.mean(found.thresholds),
        "mean_fpr": found.far,
        "mean_tpr": found.tar,
    }.items():
        np.testing.assert_allclose(value, expected[f"ov_{key}"], rtol=0, atol=1e-12, err_msg=key)
    tar, far = (float(word) for word in found.roc_lines()[7].split())
    assert (tar, far) == (found.tar[7], found.far[7])


@pytest.mark.parametrize("name", NAMES)
def test_openvino_distances_from_embeddings(name: str) -> None:
    expected = golden_files.arrays(name)
    index = 2 * np.arange(len(expected["issame"]))
    distances = squared_distances(expected["embeddings"], index, index + 1) / 2
    np.testing.assert_allclose(distances, expected["ov_scores"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_magface_accuracy(name: str) -> None:
    expected = golden_files.arrays(name)
    index = 2 * np.arange(len(expected["issame"]))
    folds = consecutive_folds(len(index))
    found, roc = magface_accuracy(expected["embeddings"], index, index + 1, expected["issame"], folds)
    np.testing.assert_array_equal(found.accuracies, expected["magface_1v1_accuracy"])
    np.testing.assert_array_equal(roc.tar, expected["magface_1v1_tpr"])
    np.testing.assert_array_equal(roc.far, expected["magface_1v1_fpr"])


def test_too_few_pairs_for_openvino_folds() -> None:
    with pytest.raises(InputError, match="19 pairs cannot be split into 10 folds"):
        openvino_lfw(np.zeros(19), np.zeros(19, bool))
