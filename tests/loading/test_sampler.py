"""The order of the images: every one once an epoch, another order each epoch, any step found at once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marginface.loading.sampler import ShuffledBatches, epoch_order


@given(st.integers(1, 300), st.integers(0, 2**32), st.integers(0, 1000))
def test_an_epoch_is_a_permutation(length: int, seed: int, epoch: int) -> None:
    order = epoch_order(length, seed, epoch)
    assert sorted(order.tolist()) == list(range(length))
    assert (order == epoch_order(length, seed, epoch)).all()


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_order(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


@given(st.integers(2, 200), st.data())
def test_batches_of_an_epoch_are_disjoint_and_drop_the_rest(length: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, length))
    batches = ShuffledBatches(length, size, seed=3)
    for epoch in (0, 1):
        steps = [batches.indices(epoch * batches.per_epoch + i) for i in range(batches.per_epoch)]
        assert all(e == epoch and len(indices) == size for e, indices in steps)
        seen = np.concatenate([indices for _, indices in steps])
        assert len(np.unique(seen)) == len(seen) == length // size * size


def test_jumping_to_a_step_gives_the_same_batch() -> None:
    walked, jumped = ShuffledBatches(50, 8, 1), ShuffledBatches(50, 8, 1)
    for step in range(20):
        expected = walked.indices(step)
    assert (jumped.indices(19)[1] == expected[1]).all()
