"""Known wrong labels and known doubles in clusters of embeddings."""

import numpy as np
import pytest

from marginface.inspect.people import examine


def clusters(people, images, seed=0, spread=0.9, size=128):
    """Embeddings of norm 1 around random centres, and labels with gaps."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, size))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    x = np.repeat(centres, images, axis=0) + spread * rng.standard_normal((people * images, size)) / np.sqrt(size)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), np.repeat(np.arange(people) * 3, images)


@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_are_found_with_the_right_ones(seed):
    embeddings, labels = clusters(200, 12, seed)
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(labels), 40, replace=False)
    truth = labels[wrong].copy()
    labels[wrong] = (truth + 3 * rng.integers(1, 199, 40)) % 600
    found = examine(embeddings, labels)
    assert set(found.odd.tolist()) >= set(wrong.tolist())
    assert len(found.odd) <= 44
    right = sum(found.better.get(int(row), (-1, 0))[0] == label for row, label in zip(wrong, truth, strict=True))
    assert right >= 36


def test_one_person_under_two_names():
    embeddings, labels = clusters(100, 10)
    labels[labels == 30] = 600  # nothing changes but a name
    halves = np.flatnonzero(labels == 60)[5:]
    labels[halves] = 900
    found = examine(embeddings, labels)
    assert [(a, b) for a, b, _ in found.same] == [(60, 900)]
    assert len(found.odd) == 0


def test_a_clean_set_has_next_to_no_faults_and_single_images_are_not_judged():
    embeddings, labels = clusters(300, 6)
    labels[:6] = [1, 2, 4, 5, 7, 8]
    found = examine(embeddings, labels)
    assert len(found.odd) <= 2
    assert not set(found.odd.tolist()) & set(range(6))
    assert found.stranger < found.usual
