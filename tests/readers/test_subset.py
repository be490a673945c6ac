"""AdaFace's index of MS1MV2: counted in folder order, small classes dropped, labels closed up."""

import shutil

import numpy as np
import pytest

from marginface.convert import Selection, convert, select
from marginface.errors import InputError
from marginface.readers import open_reader
from marginface.readers.recordio_format import frame, pack
from marginface.readers.subset import SubsetReader, is_index


@pytest.fixture
def faces_emore(tmp_path):
    """imgs/<label>/<key>.jpg of twelve people with six images each, so that "10" comes before "2"."""
    for label in range(12):
        folder = tmp_path / "imgs" / str(label)
        folder.mkdir(parents=True)
        for number in range(6):
            (folder / f"{label * 6 + number + 1}.jpg").write_bytes(b"%d %d" % (label, number))
    return tmp_path


def test_index_beside_the_images(faces_emore):
    order = [(label, key) for label in sorted(map(str, range(12))) for key in range(6)]
    gone = {0, 1, 13, 40}  # of "0" two, of "10" one, of "4" one
    index = faces_emore / "ms1mv2_train_subset_index.txt"
    index.write_text(",".join(str(n) for n in range(72) if n not in gone))
    reader = open_reader(index)
    assert isinstance(reader, SubsetReader)
    assert reader.num_classes == 11
    assert list(reader.class_names) == sorted(map(str, range(1, 12)))  # "0" has four left, fewer than five
    kept = [label for n, (label, _) in enumerate(order) if n not in gone and label != "0"]
    assert [reader.class_names[label] for label in reader.labels] == kept
    records = reader.read(range(len(reader)))
    assert [record.image.split()[0].decode() for record in records] == kept
    assert [record.label for record in records] == reader.labels.tolist()
    assert (np.bincount(reader.labels) >= 5).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1,72", "counts to image 72, but the set has 72"),
        ("0,1,2,3,4", "fewer than two identities have 5 images"),
        ("0,1,2,x", "is no list of numbers with commas|not a data set"),
        ("0,99999999999999999999", "is no list of numbers"),
    ],
)
def test_indices_that_cannot_be_used(faces_emore, text, message):
    (faces_emore / "index.txt").write_text(text)
    with pytest.raises(InputError, match=rf"index.txt: .*({message})"):
        open_reader(faces_emore / "index.txt")


FORMATS = ["folder", "recordio", "parquet", "webdataset"]


def write_record(folder, labels):
    """As InsightFace has it: the keys 1, 2, ... of images in the order of their labels."""
    folder.mkdir()
    chunks = [frame(pack([label], key, b"\x89PNG image %d" % key)) for key, label in enumerate(labels, start=1)]
    (folder / "train.rec").write_bytes(b"".join(chunks))
    return folder


@pytest.mark.parametrize("gaps", [1, 7])
@pytest.mark.parametrize("to", [*FORMATS, "folder, zip"])
def test_an_index_means_the_same_images_in_every_format_that_convert_writes(tmp_path, to, gaps, monkeypatch):
    """The index of AdaFace counts `imgs/<label>/<key>.jpg` by name; those images are the truth."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    labels = [label * gaps for label in range(23) for _ in range(5 + label % 3)]
    unpacked = sorted((str(label), f"{key}.jpg") for key, label in enumerate(labels, start=1))
    numbers = [n for n in range(len(labels)) if n % 11]
    expected = sorted(int(unpacked[n][1][:-4]) for n in numbers)
    record = write_record(tmp_path / "record", labels)
    convert(str(record), tmp_path / "out", to.partition(",")[0])
    again = tmp_path / "again"
    convert(str(tmp_path / "out"), again, "folder")
    if to.endswith("zip"):
        shutil.make_archive(str(tmp_path / "out"), "zip", tmp_path / "out")
        shutil.rmtree(tmp_path / "out")
    for folder in (record, tmp_path / ("out.zip" if to.endswith("zip") else "out"), again):
        index = (folder if folder.is_dir() else tmp_path) / "index.txt"
        index.write_text(",".join(map(str, numbers)))
        chosen, _ = select(open_reader(folder), Selection(subset=str(index)))
        found = [int(r.image.split()[-1]) for r in open_reader(folder).read(chosen.tolist())]
        assert sorted(found) == expected
        if folder.is_dir():
            beside = open_reader(index)
            kept = {int(r.image.split()[-1]) for r in beside.read(range(len(beside)))}
            assert kept == {key for key in expected if sum(labels[one - 1] == labels[key - 1] for one in expected) >= 5}


@pytest.mark.parametrize("to", FORMATS)
def test_an_index_over_people_with_names_keeps_its_images(tmp_path, to, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for person in ("Ann Lee", "bob", "zoë"):
        for number in range(1, 14):
            path = tmp_path / "named" / person / f"{person}_{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{person} {number}".encode())  # damaged, which is no reason to lose them
    numbers = [0, 1, 2, 3, 5, 8, 13, 14, 15, 16, 17, 20, 38]
    images = sorted((tmp_path / "named").rglob("*.jpg"), key=lambda path: (path.parent.name, path.name))
    convert(str(tmp_path / "named"), tmp_path / "out", to)
    (tmp_path / "index.txt").write_text(",".join(map(str, numbers)))
    rows, _ = select(open_reader(tmp_path / "out"), Selection(subset=str(tmp_path / "index.txt")))
    found = {record.image for record in open_reader(tmp_path / "out").read(rows.tolist())}
    assert found == {images[number].read_bytes() for number in numbers}


def test_lists_of_images_are_no_index(tmp_path):
    for text in ("a/1.jpg,2", "1 2", "1", "", "1,b"):
        (tmp_path / "a.txt").write_text(text)
        assert not is_index(tmp_path / "a.txt")
