"""XNorm and the joined passes against InsightFace's own figures (golden flip)."""

import numpy as np
import pytest

import golden_files
from marginface.evaluate.embeddings import Embeddings
from marginface.protocols.pairs import stored_pairs

NAMES = [name for name in golden_files.entries("verification/") if name.endswith("flip.npz")]


@pytest.mark.parametrize("name", NAMES)
def test_both_passes_as_insightface(name: str) -> None:
    expected = golden_files.arrays(name)
    both = Embeddings(expected["embeddings_original"], expected["embeddings_flipped"])
    assert both.xnorm == pytest.approx(float(expected["xnorm"]), rel=1e-6)
    fused = both.fused / np.maximum(np.linalg.norm(both.fused, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(fused, expected["embeddings_fused"], rtol=1e-5, atol=1e-7)
    result = stored_pairs(expected["issame"], "flip").score(both.fused, xnorm=both.xnorm, replicates=0)
    np.testing.assert_array_equal(result.accuracy.accuracies, expected["accuracy"])
    assert result.accuracy.mean == pytest.approx(float(expected["test_acc2"]), abs=1e-12)
    assert result.xnorm == both.xnorm
