"""LMDB sets, written by the library and read without it."""

import lmdb
import msgpack
import numpy as np
import pytest

from marginface.errors import InputError
from marginface.readers import open_reader
from marginface.readers.lmdb_set import LMDBReader
from marginface.readers.lmdb_tree import Tree
from marginface.readers.mapped import map_file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def image(number: int) -> bytes:
    return np.random.default_rng(number).bytes(10 + number * 97 % 9000)


def write(folder, count, classes=7, subdir=True, modern=True, extra=()):
    with lmdb.open(str(folder), map_size=1 << 30, subdir=subdir) as environment:
        with environment.begin(write=True) as transaction:
            for number in range(count):
                value = msgpack.packb((image(number), number % classes), use_bin_type=modern)
                transaction.put(str(number).encode(), value)
        with environment.begin(write=True) as transaction:  # a second transaction, hence the other meta page
            transaction.put(b"__keys__", msgpack.packb([str(i).encode() for i in range(count)]))
            transaction.put(b"__len__", msgpack.packb(count))
            transaction.put(b"__classnum__", msgpack.packb(classes))
            for key, value in extra:
                transaction.put(key, value)
    return folder


@pytest.mark.parametrize("count", [2, 9, 2000])
@pytest.mark.parametrize("subdir", [True, False])
def test_every_record(tmp_path, count, subdir):
    reader = open_reader(write(tmp_path / "set", count, subdir=subdir, modern=subdir))
    assert len(reader) == count
    assert reader.num_classes == min(count, 7)
    assert count == 9 or count > 100 or reader.without_images == ["2", "3", "4", "5", "6"]
    for index, record in enumerate(reader.read(range(count))):
        assert (record.image, record.label, record.key) == (image(index), index % 7, str(index))


def test_labels_are_read_once_and_saved(tmp_path, monkeypatch):
    folder = write(tmp_path / "set", 300)
    np.testing.assert_array_equal(open_reader(folder).labels, np.arange(300) % 7)
    assert (folder / "data.labels.npy").exists()
    reads = []
    monkeypatch.setattr(
        LMDBReader, "_read_one", lambda self, i, real=LMDBReader._read_one: (reads.append(i), real(self, i))[1]
    )
    np.testing.assert_array_equal(open_reader(folder).labels, np.arange(300) % 7)
    assert len(reads) <= 100


def test_the_tree_against_the_library_after_many_changes(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "set"
    with lmdb.open(str(folder), map_size=1 << 28) as environment:
        for _ in range(6):
            with environment.begin(write=True) as transaction:
                for _ in range(400):
                    key = rng.bytes(int(rng.integers(1, 400)))
                    transaction.put(key, rng.bytes(int(rng.choice([0, 5, 900, 3000, 40_000]))))
                for key in [key for key, _ in transaction.cursor() if rng.random() < 0.3]:
                    transaction.delete(key)
        with environment.begin() as transaction:
            content = dict(transaction.cursor())
    tree = Tree(map_file(folder / "data.mdb"))
    assert len(content) > 300
    for key, value in content.items():
        assert tree.get(key) == value
        assert tree.get(key + b"\0") in (None, content.get(key + b"\0"))
        assert tree.get(key[:-1]) == content.get(key[:-1])
    assert tree.get(b"") is None
    assert tree.get(b"\xff" * 500) is None


def test_an_empty_environment(tmp_path):
    with lmdb.open(str(tmp_path / "set"), map_size=1 << 20):
        pass
    with pytest.raises(InputError, match=r"data.mdb: should have the number of its images as __len__"):
        open_reader(tmp_path / "set")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (msgpack.packb((b"image", -1)), "its label -1 is no whole number from 0 on"),
        (msgpack.packb((b"image", "x")), "its label b'x' is no whole number from 0 on"),
        (msgpack.packb([b"image"]), "it is not an image and a label"),
        (msgpack.packb((5, 5)), "it is not an image and a label"),
        (b"\xdd\xff\xff\xff\xff", "record 3 is damaged"),
        (b"\x91" * 5000, "record 3 is damaged"),
    ],
)
def test_records_that_are_no_faces(tmp_path, value, message):
    reader = LMDBReader(write(tmp_path / "set", 10, extra=[(b"3", value)]))
    with pytest.raises(InputError, match=rf"data.mdb: record 3 is damaged|{message}"):
        reader.read([3])
    reader.read([2, 4])
