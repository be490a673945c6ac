"""The dialects of image lists, each as its data set writes it."""

import re

import cv2
import numpy as np
import pytest

from marginface.errors import InputError
from marginface.readers import open_reader
from marginface.readers.list_line import Line, parse_line
from marginface.readers.lists import ListReader

POINTS = np.array([[40, 50], [72, 51], [56, 70], [42, 90], [70, 91]], dtype=np.float32)
WIDTH, HEIGHT = 120, 160
IMAGES = ["bob/1.png", "ann/1.png", "bob/2.png", "ann/my picture.png"]


def words(numbers) -> str:
    return " ".join(f"{number:.6g}" for number in np.ravel(numbers))


def write_images(folder, names=IMAGES):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((HEIGHT, WIDTH, 3), number, np.uint8))
    return folder


def shift(name: str) -> np.ndarray:
    """Every image has points of its own."""
    return POINTS + IMAGES.index(name)


def box_of(name: str) -> np.ndarray:
    return np.array([8, 10, 80, 100]) + IMAGES.index(name)


def label(name: str) -> int:
    return {"ann": 7, "bob": 3}[name[:3]]


IN_BOX = {name: (shift(name) - box_of(name)[:2]) / box_of(name)[2:] for name in IMAGES}
IN_IMAGE = {name: shift(name) / (WIDTH, HEIGHT) for name in IMAGES}
BY_FOLDER, BY_NUMBER = ["ann", "bob"], ["3", "7"]
# name of the list, its line for an image, names of the identities in order, whether points are known
DIALECTS = {
    "VGGFace2": (lambda n: n, BY_FOLDER, False),
    "path label": (lambda n: f"{n} {label(n)}", BY_NUMBER, False),
    "MagFace": (lambda n: f"{n} 0 {label(n)} 0", BY_NUMBER, False),
    "LFW landmarks": (lambda n: f"{n}\t{words(shift(n))}", BY_FOLDER, True),
    "TrillionPairs": (lambda n: f"{n} {label(n)} {words(shift(n))}", BY_NUMBER, True),
    "CASIA": (lambda n: f"{n} {label(n)} {words(IN_IMAGE[n])}", BY_NUMBER, True),
    "MS-Celeb-1M": (lambda n: f"{n} | {words(IN_BOX[n])} | {words(box_of(n))}", BY_FOLDER, True),
    "IMDB-Face": (lambda n: f"{n} | {words(IN_IMAGE[n])} | {words(box_of(n))}", BY_FOLDER, True),
    "im2rec": (lambda n: f"{IMAGES.index(n)}\t{label(n)}.000000\t{n}", BY_NUMBER, False),
    "im2rec, two labels": (lambda n: f"5\t{label(n)}\t0.25\t{n}", BY_NUMBER, False),
    "CVLface": (lambda n: f"{IMAGES.index(n)}\t{n}\t{label(n)}", BY_NUMBER, False),
    "InsightFace": (lambda n: f"1\t{n}\t{label(n)}", BY_NUMBER, False),
    "InsightFace, points": (
        lambda n: f"0\t{n}\t{label(n)}\t1\t2\t99\t98\t{words(shift(n))}".replace(" ", "\t"),
        BY_NUMBER,
        True,
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("images", ["faces", "."])
def test_dialects(tmp_path, dialect, images):
    line, identities, points = DIALECTS[dialect]
    names = [name for name in IMAGES if "\t" not in line(name) or "picture" not in name or dialect == "LFW landmarks"]
    write_images(tmp_path / images)
    (tmp_path / "the.list").write_text("\n".join(map(line, names)) + "\n\n")
    reader = open_reader(tmp_path / "the.list")
    assert isinstance(reader, ListReader)
    records = reader.read(range(len(reader)))
    assert [record.key for record in records] == names
    assert list(reader.class_names) == identities
    assert reader.num_classes == 2
    expected = [int(name.startswith("ann") == (identities == BY_NUMBER)) for name in names]
    assert reader.labels.tolist() == [record.label for record in records] == expected
    assert reader.labels.dtype == np.int64
    for record in records:
        assert record.image == (tmp_path / images / record.key).read_bytes()
        if points:
            assert record.points.dtype == np.float32
            np.testing.assert_allclose(record.points, shift(record.key), atol=2e-3)
        else:
            assert record.points is None


def test_labels_without_gaps_in_the_order_of_the_numbers(tmp_path):
    write_images(tmp_path)
    numbers = {"bob/1.png": 2000, "ann/1.png": 11, "bob/2.png": 2000, "ann/my picture.png": 300}
    (tmp_path / "a.txt").write_text("".join(f"{name} {number}\n" for name, number in numbers.items()))
    reader = open_reader(tmp_path / "a.txt")
    assert reader.labels.tolist() == [2, 0, 2, 1]
    assert list(reader.class_names) == ["11", "300", "2000"]


@pytest.mark.parametrize(
    ("listed", "landmarks"), [("train_list.txt", "train"), ("test_list.txt", "test"), ("x.txt", "all")]
)
def test_vggface2_takes_the_landmarks_from_its_csv(tmp_path, listed, landmarks):
    write_images(tmp_path / "train")
    names = IMAGES[:3]
    (tmp_path / listed).write_text("\n".join(names))
    (tmp_path / "bb_landmark").mkdir()
    rows = ["NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y", '"other/9",1,2,3,4,5,6,7,8,9,10']
    rows += [f'"{name[:-4]}",{words(shift(name)).replace(" ", ",")}' for name in names[::-1]]
    file = tmp_path / "bb_landmark" / f"loose_landmark_{landmarks}.csv"
    file.write_text("\n".join(rows))
    for record in open_reader(tmp_path / listed).read(range(3)):
        np.testing.assert_allclose(record.points, shift(record.key), atol=1e-4)
    file.write_text("\n".join(rows[:-1]))
    with pytest.raises(InputError, match=r"loose_landmark_.*.csv: has no points for bob/1.png"):
        open_reader(tmp_path / listed)
    file.write_text("nothing")
    with pytest.raises(InputError, match=r"has no points for bob/1.png"):
        open_reader(tmp_path / listed)


@pytest.mark.parametrize("aligned", [True, False])
def test_celeba(tmp_path, aligned):
    names = ["000001.jpg", "000002.jpg", "000003.jpg"]
    write_images(tmp_path / ("img_align_celeba" if aligned else "img_celeba"), names)
    (tmp_path / "identity_CelebA.txt").write_text("000001.jpg 2880\n000002.jpg 2937\n000003.jpg 2880\n")
    for suffix, points in (("_align", POINTS), ("", POINTS * 3)):
        rows = ["3", "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x r"]
        rows += [f"{name} {words(points + int(name[:6]))}" for name in names]
        (tmp_path / f"list_landmarks{suffix}_celeba.txt").write_text("\n".join(rows))
    reader = open_reader(tmp_path / "identity_CelebA.txt")
    assert reader.labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(reader.read([1])[0].points, (POINTS if aligned else POINTS * 3) + 2)


def test_faces_that_were_not_detected_are_left_out(tmp_path):
    write_images(tmp_path)
    line = DIALECTS["MS-Celeb-1M"][0]
    (tmp_path / "a.txt").write_text("\n".join(["x/1.png | |", "x/2.png | | ", *map(line, IMAGES[:2])]))
    assert [record.key for record in open_reader(tmp_path / "a.txt").read([0, 1])] == IMAGES[:2]


@pytest.mark.lfw
def test_lfw_landmarks_of_the_real_set(lfw_root):
    reader = open_reader(lfw_root / "lfw_landmark.txt")
    record = reader.read([len(reader) - 1])[0]
    assert (lfw_root / "images" / record.key).read_bytes() == record.image
    assert (record.points > 40).all()
    assert (record.points < 210).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bob/1.png 0\nann/1.png\n", None),
        ("bob/1.png 0\nann/1.png 1 2\n", "line 2 is no line of an image list: 0 numbers before and 2 after the path"),
        ("bob/1.png 0\nann/1.png -1\n", "the label -1 is not a whole number from 0 on"),
        ("bob/1.png 0\nann/1.png 0.5\n", "the label 0.5 is not a whole number from 0 on"),
        ("bob/1.png 0\nann/1.png 1 1 2 3 4 5 6 7 8 9 10\n", "line 2 .* not as many numbers as the lines before"),
        ("bob/1.png | 1 2 3 | 1 2 3 4\nann/1.png | 1 2 3 | 1 2 3 4", "not a data set"),
        ("bob/1.png 5\nbob/2.png 5\n", r"holds one identity only \(5\)"),
        ("bob/7.png 0\nann/1.png 1\n", "its first image, .bob/7.png., lies neither"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, message):
    write_images(tmp_path)
    (tmp_path / "a.txt").write_text(text)
    if message is None:
        assert open_reader(tmp_path / "a.txt").labels.tolist() == [0, 1]
        return
    with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path))}/a.txt: .*{message}"):
        open_reader(tmp_path / "a.txt")


def test_an_image_that_is_missing_is_named(tmp_path):
    write_images(tmp_path)
    (tmp_path / "a.txt").write_text("bob/1.png 0\nann/9.png 1\n")
    reader = open_reader(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"a.txt: image 1, .*ann/9.png, cannot be read: No such file"):
        reader.read([1])


def test_a_line_may_name_a_path_with_spaces_and_numbers():
    assert parse_line("a b/c 1 d.jpg 4") == Line("a b/c 1 d.jpg", "4")
    assert parse_line("C:\\faces\\tom\\1.jpg") == Line("C:\\faces\\tom\\1.jpg", "C:/faces/tom")
