import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marginface.errors import InputError
from marginface.readers import open_reader
from marginface.readers.folder import FolderReader
from marginface.readers.mapped import read_file
from marginface.readers.names import PackedNames


def fill(root, files):
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


FILES = [
    "10/b.jpg",
    "10/a.PNG",
    "9/x.webp",
    "9/v2/z.jpeg",
    "9/v1/y.bmp",
    "9/notes.txt",
    ".cache/a.jpg",
    "7/.a.jpg",
    "list.txt",
]
EXPECTED = [("10/a.PNG", 0), ("10/b.jpg", 0), ("9/x.webp", 1), ("9/v1/y.bmp", 1), ("9/v2/z.jpeg", 1)]


def test_identities_and_images_in_lexicographic_order(tmp_path):
    fill(tmp_path, FILES)
    reader = FolderReader(tmp_path)
    assert len(reader) == 5
    assert reader.num_classes == 2
    assert list(reader.class_names) == ["10", "9"]
    assert reader.labels.dtype == np.int64
    assert [(r.key, r.label) for r in reader.read(range(5))] == EXPECTED
    assert [r.image for r in reader.read([4, 0])] == [b"9/v2/z.jpeg", b"10/a.PNG"]
    assert reader.labels.tolist() == [0, 0, 1, 1, 1]


def test_opened_by_content(tmp_path):
    fill(tmp_path, FILES)
    assert isinstance(open_reader(tmp_path), FolderReader)
    assert len(open_reader(str(tmp_path))) == 5


def test_an_imgs_folder_as_adaface_lays_it_out(tmp_path):
    fill(tmp_path, [f"imgs/{name}" for name in FILES])
    assert [r.key for r in open_reader(tmp_path).read([0])] == ["10/a.PNG"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "there is no such folder|no such file or folder"),
        ([], "no images found"),
        (["a.jpg", "b.jpg"], "no images found"),
        (["a/notes.txt", "b/notes.txt"], "no images found"),
        (["tom/a.jpg", "tom/b.jpg", "ann/notes.txt"], r"one identity only \(tom\)"),
    ],
)
def test_unusable_folders_are_refused_in_one_sentence(tmp_path, files, message):
    root = tmp_path / "set"
    if files is not None:
        root.mkdir()
        fill(root, files)
    for opened in (open_reader,) if "one identity" in message else (FolderReader, open_reader):
        with pytest.raises(InputError, match=f"{re.escape(str(root))}: .*({message})") as caught:
            opened(root)
        assert "\n" not in str(caught.value)


def test_an_image_that_vanished_is_named(tmp_path):
    fill(tmp_path, FILES)
    reader = FolderReader(tmp_path)
    (tmp_path / "9/x.webp").unlink()
    with pytest.raises(InputError, match=r"9/x.webp: record 2 cannot be read: No such file"):
        reader.read([2])


def test_a_file_that_nobody_understands(tmp_path):
    (tmp_path / "set.foo").write_bytes(b"what is this")
    with pytest.raises(InputError, match=r"set.foo: not a data set .*subfolder of images.*synthetic:"):
        open_reader(tmp_path / "set.foo")


@pytest.mark.parametrize(
    "spec", ["synthetic:people=3", "synthetic:images", "synthetic:images=-1", "synthetic:images=two"]
)
def test_unknown_options_of_the_synthetic_set(spec):
    with pytest.raises(InputError, match=r"not understood; give identities, images, seed, first"):
        open_reader(spec)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text()), st.data())
def test_packed_names_are_a_list_of_strings(names, data):
    packed = PackedNames(names)
    assert list(packed) == names
    assert packed[1:-1] == names[1:-1]
    if names:
        index = data.draw(st.integers(-len(names), len(names) - 1))
        assert packed[index] == names[index]
    with pytest.raises(IndexError):
        packed[len(names)]


def test_packed_names_keep_file_names_that_are_not_utf8():
    assert list(PackedNames(["a\udcff.jpg"])) == ["a\udcff.jpg"]


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3 << 16])
def test_files_are_read_whole(tmp_path, size):
    (tmp_path / "file").write_bytes(np.random.default_rng(0).bytes(size))
    assert read_file(str(tmp_path / "file")) == (tmp_path / "file").read_bytes()
    with pytest.raises(InputError, match="is a folder, not a file"):
        read_file(str(tmp_path))
