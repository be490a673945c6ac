"""Old people beside new ones: the share of every batch, labels that do not collide, the same batches from any step."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.loading.loader import DataConfig
from marginface.readers import open_reader
from marginface.training.mixing import MixedLoader, OldConfig
from people import write_people


@pytest.fixture
def loader(tmp_path: Path) -> MixedLoader:
    new, old = write_people(tmp_path / "new", people=6), write_people(tmp_path / "old", people=9, seed=1)
    return MixedLoader(open_reader(new), DataConfig(train=str(new), batch_size=8), OldConfig(str(old), 0.25), seed=3)


def test_every_batch_has_its_share_of_old_people(loader: MixedLoader) -> None:
    assert loader.reader.num_classes == 15
    assert loader.batches.per_epoch == 4  # 24 new images, 6 a batch
    for batch in islice(loader.start(0), 9):
        assert (batch.labels >= 6).sum() == 2
        assert (batch.labels[:4] >= 6).sum() == 1  # either half of the batch has as many
        np.testing.assert_array_equal(batch.labels, loader.reader.labels[batch.indices])
        assert [r.label for r in loader.reader.read(batch.indices.tolist())] == batch.labels.tolist()


def test_batches_are_the_same_from_any_step(loader: MixedLoader) -> None:
    from_start, later = list(islice(loader.start(0), 7))[5:], list(islice(loader.start(5), 2))
    for one, other in zip(from_start, later, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize("indices", [[0, 30, 5], [40, 41], [1, 2]])
def test_plain_images_are_those_of_the_sets(loader: MixedLoader, indices: list[int]) -> None:
    images, labels = loader.plain(np.array(indices))
    assert len(images) == len(indices)
    assert sorted(labels) == sorted(loader.reader.labels[indices])
    assert loader.load(0, np.array(indices)).images.shape == images.shape
    assert loader.key(30).startswith("p0")


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_of_nobody_or_everybody_is_refused(loader: MixedLoader, share: float) -> None:
    old = OldConfig(loader.old.config.train, share)
    with pytest.raises(InputError, match=r"old\.share"):
        MixedLoader(loader.reader.new, DataConfig(batch_size=8), old, seed=0)
    with pytest.raises(InputError, match=r"old\.share"):
        OldConfig(share=1.0)
