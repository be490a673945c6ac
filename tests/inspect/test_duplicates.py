"""Search by pieces against comparing everything with everything."""

import numpy as np
import pytest

from marginface.inspect.duplicates import alike, groups, hamming, same_bytes


def hashes(count, copies, flips, seed=0):
    """Random 256-bit hashes; `copies` of the first ones follow with `flips` bits changed each."""
    rng = np.random.default_rng(seed)
    looks = rng.integers(0, 1 << 63, (count, 4), dtype=np.uint64)
    bits = np.unpackbits(looks[:copies].view(np.uint8), axis=1)
    for row in bits:
        row[rng.choice(256, flips, replace=False)] ^= 1
    return np.concatenate([looks, np.packbits(bits, axis=1).view(np.uint64)])


@pytest.mark.parametrize("flips", [0, 1, 8, 15])
def test_every_pair_below_the_number_of_pieces_is_found(flips):
    looks = hashes(400, 60, flips)
    found = alike(looks, np.ones(460, dtype=bool), distance=20)
    np.testing.assert_array_equal(found, np.stack([np.arange(60), np.arange(400, 460)], axis=1))


def test_most_pairs_at_a_larger_distance_are_found():
    found = alike(hashes(3000, 1000, 20), np.ones(4000, dtype=bool), distance=20)
    assert len(found) > 980
    assert len(alike(hashes(3000, 1000, 21), np.ones(4000, dtype=bool), distance=20)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_against_comparing_all(seed):
    rng = np.random.default_rng(seed)
    looks = hashes(30, 0, 0, seed)[rng.integers(0, 30, 200)] ^ (
        np.uint64(1) << rng.integers(0, 64, (200, 4), dtype=np.uint64)
    )
    readable = rng.random(200) < 0.9
    a, b = np.triu_indices(200, 1)
    expected = (hamming(looks[a], looks[b]) <= 9) & readable[a] & readable[b]
    np.testing.assert_array_equal(alike(looks, readable, 9), np.stack([a[expected], b[expected]], axis=1))


def test_many_equal_pictures_are_one_group_without_all_their_pairs():
    looks = np.zeros((30_000, 4), dtype=np.uint64)
    pairs = alike(looks, np.ones(30_000, dtype=bool), 5)
    assert len(pairs) < 100_000
    (group,) = groups(pairs, 30_000)
    np.testing.assert_array_equal(group, np.arange(30_000))


def test_groups_are_the_connected_parts():
    pairs = np.array([[5, 9], [1, 2], [2, 7], [7, 3], [9, 4], [0, 8]])
    assert [group.tolist() for group in groups(pairs, 12)] == [[0, 8], [1, 2, 3, 7], [4, 5, 9]]
    assert groups(np.empty((0, 2), dtype=np.int64), 5) == []
    chain = np.stack([np.arange(999), np.arange(1, 1000)], axis=1)
    assert len(groups(np.random.default_rng(0).permutation(chain), 1000)[0]) == 1000


def test_same_bytes():
    exact = np.array([7, 1, 7, 3, 1, 7, 0, 0], dtype=np.uint64)
    readable = np.array([1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)  # hashes of unreadable images are zero
    assert [group.tolist() for group in same_bytes(exact, readable)] == [[1, 4], [0, 2, 5]]
    assert same_bytes(exact[:0], readable[:0]) == []
