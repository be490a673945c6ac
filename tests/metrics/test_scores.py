"""Blocked products, pooling and search against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginface.errors import InputError
from marginface.metrics import identification, scores
from marginface.metrics.identification import search
from marginface.metrics.templates import Pooling, pool_templates


def unit(rng: np.random.Generator, rows: int, numbers: int = 8) -> np.ndarray:
    vectors = rng.normal(size=(rows, numbers))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("few", "block", "part"), [(0, 50, 700), (0, 10**6, 10**6), (10**6, 50, 9)])
def test_scores_of_pairs_and_equal_scores_of_equal_vectors(
    monkeypatch: pytest.MonkeyPatch, few: int, block: int, part: int
) -> None:
    monkeypatch.setattr(scores, "FEW", few)
    monkeypatch.setattr(scores, "BLOCK", block)
    monkeypatch.setattr(scores, "PART", part)
    rng = np.random.default_rng(0)
    vectors = unit(rng, 60)
    vectors[30:] = vectors[rng.integers(0, 30, 30)]  # copies
    first, second = rng.integers(0, 60, (2, 3000))
    found = scores.pair_scores(vectors, first, second)
    expected = np.sum(vectors[first] * vectors[second], axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
    keys = [(vectors[a].tobytes(), vectors[b].tobytes()) for a, b in zip(first, second, strict=True)]
    assert len({(*key, score) for key, score in zip(keys, found, strict=True)}) == len(set(keys))


def naive_templates(features: np.ndarray, templates: np.ndarray, media: np.ndarray) -> np.ndarray:
    pooled = []
    for template in np.unique(templates):
        own = templates == template
        means = [features[own & (media == medium)].mean(axis=0) for medium in np.unique(media[own])]
        pooled.append(np.sum(means, axis=0))
    return np.array(pooled) / np.linalg.norm(pooled, axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 80), st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_pooling_equals_a_loop_over_templates_and_media(images: int, templates: int, media: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    original, flipped = rng.normal(size=(2, images, 6)).astype(np.float32)
    faceness = rng.uniform(0.1, 1, images)
    template, medium = rng.integers(0, templates, images) * 7, rng.integers(0, media, images) + 100
    found = pool_templates(original, flipped, faceness, template, medium)
    features = (original + flipped) * faceness[:, None]
    np.testing.assert_allclose(found.vectors, naive_templates(features, template, medium), atol=1e-5)
    plain = pool_templates(original, None, faceness, template, medium, Pooling(False, False, False))
    lengths = np.linalg.norm(original, axis=1, keepdims=True)
    np.testing.assert_allclose(plain.vectors, naive_templates(original / lengths, template, medium), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_search_equals_a_loop_over_probes(probes: int, gallery: int, people: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probe, vectors = unit(rng, probes), unit(rng, gallery)
    labels, own = rng.integers(0, people + 1, probes), rng.integers(0, people, gallery)
    similarities = probe @ vectors.T
    block, identification.BLOCK = identification.BLOCK, 3 * gallery
    try:
        found = search(probe, vectors, labels, own, top=7)
    finally:
        identification.BLOCK = block
    for i in range(probes):
        mates, others = similarities[i][own == labels[i]], similarities[i][own != labels[i]]
        np.testing.assert_allclose(found.mate[i], mates.max(initial=-np.inf), rtol=1e-12)
        np.testing.assert_allclose(found.other[i], others.max(initial=-np.inf), rtol=1e-12)
        assert found.mated[i] == (len(mates) > 0)
        if len(mates):
            assert found.ahead[i] == np.sum(others >= mates.max())
    wrong = np.sort(similarities[own[None, :] != labels[:, None]])[::-1]
    np.testing.assert_allclose(found.top_others, wrong[:7], rtol=1e-12)


def test_search_refuses_other_dimensions() -> None:
    with pytest.raises(InputError, match="probes have 3 numbers a vector, the gallery 4"):
        search(np.ones((2, 3)), np.ones((2, 4)), np.zeros(2), np.zeros(2))


def test_pooling_refuses_unknown_media_rules() -> None:
    with pytest.raises(InputError, match="'mean' or 'unit', not 'sum'"):
        Pooling(media="sum")
