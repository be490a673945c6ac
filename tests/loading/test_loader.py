"""Batches: the same whatever the number of threads, exact from any step, shared by processes, honest about damage."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.loading.augment import AugmentConfig
from marginface.loading.loader import Batch, DataConfig, Loader
from marginface.readers import open_reader
from people import write_people


def batches(folder: Path, start: int = 0, count: int = 12, seed: int = 1, **options: object) -> list[Batch]:
    config = DataConfig(train=str(folder), **{"batch_size": 10, "augment": AugmentConfig(flip=0.5)} | options)
    return list(itertools.islice(Loader(open_reader(folder), config, seed).start(start), count))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(
        (x.images == y.images).all() and (x.labels == y.labels).all() and (x.indices == y.indices).all()
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("data") / "people")


def test_batches_do_not_depend_on_threads_or_cache(people: Path) -> None:
    one = batches(people, workers=1)
    assert one[0].images.shape == (10, 112, 112, 3)
    assert one[0].images.dtype == np.uint8
    assert same(one, batches(people, workers=4))
    assert same(one, batches(people, workers=3, cache=True))
    assert not same(one, batches(people, seed=2))


SAMPLINGS = pytest.mark.parametrize("sampling", ["shuffled", "balanced", "pxk"])


@SAMPLINGS
def test_starting_at_a_step_continues_exactly(people: Path, sampling: str) -> None:
    options = {"sampling": sampling, "images_per_identity": 2, "augment": AugmentConfig(adaface_crop=0.5, erasing=0.5)}
    assert same(batches(people, **options)[5:], batches(people, start=5, count=7, **options))


def test_flips_change_from_epoch_to_epoch(people: Path) -> None:
    reader = open_reader(people)
    config = DataConfig(train=str(people), batch_size=10, augment=AugmentConfig(flip=0.5))
    loader = Loader(reader, config, seed=1)
    views = {loader.load(epoch, np.array([3])).images.tobytes() for epoch in range(20)}
    assert len(views) == 2


@SAMPLINGS
def test_processes_share_the_global_batch(people: Path, sampling: str) -> None:
    config = DataConfig(train=str(people), batch_size=12, sampling=sampling)
    reader = open_reader(people)
    whole = next(Loader(reader, config, seed=1).start(0))
    parts = [next(Loader(reader, config, 1, rank, 3).start(0)) for rank in range(3)]
    assert (np.concatenate([part.indices for part in parts]) == whole.indices).all()
    assert (np.concatenate([part.images for part in parts]) == whole.images).all()


def test_damaged_images_are_skipped_up_to_a_limit_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_people(tmp_path / "people")
    (folder / "p03" / "p03_0002.jpg").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"1 of 96 images cannot be read.*p03_0002\.jpg"):
        batches(folder)
    monkeypatch.setattr("marginface.loading.loader.UNREADABLE_LIMIT", 0.02)
    epoch = batches(folder, count=9)
    short = [batch for batch in epoch if batch.unreadable]
    assert sum(len(batch.labels) for batch in epoch) == 89
    assert len(short) == 1
    assert len(short[0].images) == len(short[0].labels) == 9


def test_another_size_is_refused_unless_resized(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people", size=96)
    with pytest.raises(InputError, match=r"96×96 pixels.*marginface align.*--data\.resize"):
        batches(folder)
    assert batches(folder, count=1, resize=True)[0].images.shape == (10, 112, 112, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 97}, "only 96 images: give --data.batch_size 96 or less"),
        ({"workers": 0}, r"data\.workers is 0"),
        ({"batch_size": 1}, "batch norm needs 2"),
    ],
)
def test_impossible_settings_are_refused(people: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        batches(people, **options)
