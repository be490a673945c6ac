"""AdaFace's index of MS1MV2: counted in folder order, small classes dropped, labels closed up."""

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.readers import open_reader
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


def test_lists_of_images_are_no_index(tmp_path):
    for text in ("a/1.jpg,2", "1 2", "1", "", "1,b"):
        (tmp_path / "a.txt").write_text(text)
        assert not is_index(tmp_path / "a.txt")
