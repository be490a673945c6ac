"""The order of the images: what each sampling promises, another order each epoch, any step found at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginface.errors import InputError
from marginface.loading.sampler import SAMPLINGS, Batches, create_batches, epoch_order


def batches(sampling: str, labels: np.ndarray, batch_size: int, seed: int = 3, images: int = 4) -> Batches:
    return create_batches(sampling, lambda: labels, len(labels), batch_size, seed, images)


def shuffled(length: int, batch_size: int, seed: int = 3) -> Batches:
    return batches("shuffled", np.zeros(length, np.int64), batch_size, seed)


def people(counts: list[int], seed: int = 0) -> np.ndarray:
    """Labels in no order; identities may have no image."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@given(st.integers(1, 300), st.integers(0, 2**32), st.integers(0, 1000))
def test_an_epoch_is_a_permutation(length: int, seed: int, epoch: int) -> None:
    order = epoch_order(length, seed, epoch)
    assert sorted(order.tolist()) == list(range(length))
    assert (order == epoch_order(length, seed, epoch)).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_epochs_and_seeds_differ(sampling: str) -> None:
    made = [batches(sampling, people([10] * 10), 20, seed) for seed in (0, 1)]
    orders = [np.concatenate([one.indices(5 * epoch + i)[1] for i in range(5)]) for one in made for epoch in (0, 1)]
    assert all((a != b).any() for i, a in enumerate(orders) for b in orders[:i])


@given(st.integers(2, 200), st.data())
def test_batches_of_an_epoch_are_disjoint_and_drop_the_rest(length: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, length))
    made = shuffled(length, size)
    for epoch in (0, 1):
        steps = [made.indices(epoch * made.per_epoch + i) for i in range(made.per_epoch)]
        assert all(e == epoch and len(indices) == size for e, indices in steps)
        seen = np.concatenate([indices for _, indices in steps])
        assert len(np.unique(seen)) == len(seen) == length // size * size


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_jumping_to_a_step_gives_the_same_batch(sampling: str) -> None:
    labels = people([5] * 10)
    walked, jumped = batches(sampling, labels, 8), batches(sampling, labels, 8)
    for step in range(20):
        expected = walked.indices(step)
    found = jumped.indices(19)
    assert found[0] == expected[0] == 19 // (50 // 8)
    assert (found[1] == expected[1]).all()


def test_balanced_shows_every_identity_and_every_image_of_it_equally_often() -> None:
    counts = [1, 0, 2, 50, 7]
    labels = people(counts)
    made = batches("balanced", labels, 60)
    seen = np.bincount(np.concatenate([made.indices(step)[1] for step in range(1000)]), minlength=60)
    for label, count in enumerate(counts):
        if count:
            assert seen[labels == label].sum() == pytest.approx(60_000 / 4, rel=0.03)
            np.testing.assert_allclose(seen[labels == label], 60_000 / 4 / count, rtol=0.25)


@given(st.lists(st.integers(0, 9), min_size=8, max_size=40), st.integers(1, 5), st.data())
def test_pxk_batches_hold_p_identities_with_k_images(counts: list[int], images: int, data: st.DataObject) -> None:
    labels, present = people(counts), sum(count > 0 for count in counts)
    most = min(present, len(labels) // images)
    if most < 1:
        return
    identities = data.draw(st.integers(1, most))
    made = batches("pxk", labels, identities * images, images=images)
    for step in range(2 * made.per_epoch):
        rows = made.indices(step)[1].reshape(identities, images)
        owners = labels[rows]
        assert (owners == owners[:, :1]).all()
        assert len(set(owners[:, 0].tolist())) == identities
        for owner, of_one in zip(owners[:, 0], rows, strict=True):
            assert len(set(of_one.tolist())) == min(images, counts[owner])


def test_pxk_takes_turns() -> None:
    made = batches("pxk", people([12] * 10), 20, images=4)
    rows = np.concatenate([made.indices(step)[1] for step in range(made.per_epoch)])
    assert len(np.unique(rows)) == 120  # ten identities, three turns of four images: the whole set once


def test_shuffled_never_asks_for_labels() -> None:
    assert create_batches("shuffled", lambda: pytest.fail("asked"), 10, 2, 0, 4).per_epoch == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("random", 8, 4), "data.sampling is random: give one of shuffled, balanced, pxk"),
        (("pxk", 9, 4), "data.batch_size 9 is no multiple of data.images_per_identity 4"),
        (("pxk", 24, 4), "needs 6 identities of 4 images, but there are 5: give --data.batch_size 20 or less"),
    ],
)
def test_impossible_batches_are_refused(options: tuple[str, int, int], message: str) -> None:
    sampling, batch_size, images = options
    with pytest.raises(InputError, match=message):
        batches(sampling, people([10] * 5), batch_size, images=images)
