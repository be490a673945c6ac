"""Verification files that Python 2 and 3 and the references wrote, and those that an attacker would."""

import hashlib
import io
import json
import lzma
import os
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import golden_files
from marginface.errors import InputError
from marginface.loading.decode import decode, decode_batch
from marginface.readers import open_reader, safe_pickle
from marginface.readers.verification import open_verification

BINS = [name for name in golden_files.entries("recordio/bin/") if name.endswith(".bin")]


@pytest.mark.parametrize("name", BINS)
def test_golden(name):
    expected = json.loads((golden_files.FOLDER / "recordio/images_expected.json").read_text())
    pairs = golden_files.entry(name)["n_pairs"]
    found = open_verification(golden_files.FOLDER / name)
    assert found.issame.dtype == bool
    assert found.issame.tolist() == expected["issame"][:pairs]
    hashes = [hashlib.sha256(record.image).hexdigest() for record in found.images]
    assert hashes == expected["image_sha256"][: 2 * pairs]
    assert [record.label for record in found.images] == [i // 2 for i in range(2 * pairs)]
    first = golden_files.arrays("recordio/bin_expected.npz")["first_image_rgb"]
    assert np.abs(decode(found.images[0]).astype(int) - first).max() <= 4


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner) | st.tuples(inner, inner, inner, inner),
    max_leaves=20,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plain, st.integers(0, 5))
def test_plain_data_is_read_as_pickle_reads_it(value, protocol):
    assert safe_pickle.load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32", ">i4", "<u2"])
def test_arrays_are_read_as_pickle_reads_them(protocol, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    shared = array[0].copy()
    values = [array, np.asfortranarray(array), shared, shared, np.zeros((0, 3), dtype), array.ravel()[3]]
    loaded = safe_pickle.load(pickle.dumps(values, protocol))
    for one, other in zip(loaded, values, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert loaded[2] is loaded[3]
    objects = np.empty(2, dtype=object)
    objects[:] = [b"a", b"bc"]
    assert safe_pickle.load(pickle.dumps(objects, protocol)) == [b"a", b"bc"]


def test_bytearray_is_bytes():
    assert safe_pickle.load(pickle.dumps([bytearray(b"abc"), bytearray()], 5)) == [b"abc", b""]
    assert safe_pickle.load(pickle.dumps([bytearray(b"abc"), b""], 2)) == [b"abc", b""]


class Attack:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


ATTACKS = {
    "os.system": lambda path: Attack(os.system, f"touch {path}"),
    "eval": lambda path: Attack(eval, f"open({str(path)!r}, 'w')"),
    "open": lambda path: Attack(open, str(path), "w"),
    "numpy.load": lambda path: Attack(np.load, str(path)),
    "getattr": lambda path: Attack(getattr, b"", "join"),
    "memmap": lambda path: Attack(np.memmap, str(path), "u1", "w+", 0, (10,)),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickles_are_refused_and_not_run(tmp_path, attack, protocol):
    mark = tmp_path / "executed"
    file = tmp_path / "evil.bin"
    file.write_bytes(pickle.dumps(([ATTACKS[attack](mark), b""], [True]), protocol))
    with pytest.raises(InputError, match=r"evil.bin: .*byte \d+: the pickle wants to use .*, which is not allowed"):
        open_verification(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04B\xff\xff\xff\xffabc.",  # claims 4 GB of bytes
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04]r\xff\xff\xff\xff.",  # a memo of 4 billion places
        b"\x80\x02cnumpy\ndtype\n(X\x0a\0\0\0V999999999tR.",
        b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
        b"\x80\x04" + b"(" * 100_000 + b"l" * 100_000 + b".",  # a million lists in each other
        b"\x80\x04" + b"]" + b"\x85" * 100_000 + b".",
    ],
    ids=["bytes", "bytes8", "memo", "dtype", "ndarray", "nested", "tuples"],
)
def test_bombs_neither_explode_nor_crash(tmp_path, data):
    (tmp_path / "bomb.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"bomb.bin: "):
        open_verification(tmp_path / "bomb.bin")


def test_packed_as_xz_and_its_bombs(tmp_path):
    content = ([b"a", b"b", b"c", b"d"], [True, False])
    (tmp_path / "set.xz").write_bytes(lzma.compress(pickle.dumps(content)))
    found = open_verification(tmp_path / "set.xz")
    assert [record.image for record in found.images] == content[0]
    assert found.name == "set"
    (tmp_path / "cut.xz").write_bytes((tmp_path / "set.xz").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"cut.xz: .*cut short"):
        open_verification(tmp_path / "cut.xz")
    (tmp_path / "bomb.xz").write_bytes(lzma.compress(bytes(20_000_000), preset=0))
    with pytest.raises(InputError, match=r"bomb.xz: .*unpacks to more than"):
        open_verification(tmp_path / "bomb.xz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([b"a"], "does not hold two things"),
        (([b"a", b"b", b"c"], [True]), "two images for each of its 1 pairs"),
        ((b"ab", [True]), "two images for each"),
        (([b"a", b"b"], [2]), "not a list of true and false"),
        (([b"a", b"b"], []), "not a list of true and false"),
        (([b"a", b"b"], "x"), "not a list of true and false"),
        (([b"a", 7], [True]), "image 1 is neither bytes nor a uint8 array"),
        (([b"a", np.zeros((2, 2), np.float32)], [True]), "image 1 is neither bytes nor a uint8 array"),
    ],
)
def test_other_pickles_are_no_verification_sets(tmp_path, content, message):
    (tmp_path / "set.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=rf"set.bin: .*{message}"):
        open_verification(tmp_path / "set.bin")


def pictures(count):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def test_arrays_of_pixels_and_of_encoded_bytes_in_a_bin(tmp_path):
    rgb = pictures(2)
    encoded = [cv2.imencode(".png", image[..., ::-1])[1] for image in rgb]
    for images in (list(rgb), rgb, encoded, [one.reshape(-1, 1) for one in encoded]):
        (tmp_path / "set.bin").write_bytes(pickle.dumps((images, np.array([True]))))
        found = open_verification(tmp_path / "set.bin")
        np.testing.assert_array_equal(decode_batch(found.images)[0], rgb)


def write_memfile(root, rgb, issame, conf=None):
    """As AdaFace does: BGR, scaled to [-1, 1], channels first."""
    folder = root / "agedb_30" / "memfile"
    folder.mkdir(parents=True)
    array = ((rgb[..., ::-1].astype(np.float32) / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2)
    np.ascontiguousarray(array).tofile(folder / "mem_file.dat")
    (folder / "mem_file.dat.conf").write_text(conf or json.dumps({"shape": array.shape, "dtype": "float32"}))
    np.save(root / "agedb_30_list.npy", np.array(issame))
    return root / "agedb_30"


@pytest.mark.parametrize("opened", [".", "memfile", "memfile/mem_file.dat"])
def test_memfile_of_adaface(tmp_path, opened):
    rgb = pictures(6)
    found = open_verification(write_memfile(tmp_path, rgb, [True, False, True]) / opened)
    np.testing.assert_array_equal(decode_batch(list(found.images))[0], rgb)
    assert found.issame.tolist() == [True, False, True]
    assert (found.name, found.images[5].key, found.images[5].label) == ("agedb_30", "agedb_30:5", 2)
    assert [record.key for record in found.images[4:]] == ["agedb_30:4", "agedb_30:5"]


@pytest.mark.parametrize(
    ("conf", "issame", "message"),
    [
        ("{", [True], "mem_file.dat.conf: should be JSON"),
        ('{"shape": 7, "dtype": "float32"}', [True], "mem_file.dat.conf: should be JSON"),
        ('{"shape": [2, 3, 112, 112], "dtype": "object"}', [True], "expected float32 of"),
        ('{"shape": [1000000, 3, 112, 112], "dtype": "float32"}', [True], "has 301,056 bytes, not the 150,528,000,000"),
        ('{"shape": [-2, 3, 112, 112], "dtype": "float32"}', [True], "expected float32 of"),
        (None, [True, False], "has 2 images, but there are 2 pairs"),
    ],
)
def test_damaged_memfiles(tmp_path, conf, issame, message):
    with pytest.raises(InputError, match=message):
        open_verification(write_memfile(tmp_path, pictures(2), issame, conf))


@pytest.mark.parametrize("channels_first", [True, False])
def test_npy_with_issame(tmp_path, channels_first):
    rgb = pictures(4)
    folder = tmp_path / "hadrian"
    folder.mkdir()
    np.save(folder / "hadrian.npy", rgb.transpose(0, 3, 1, 2) if channels_first else rgb)
    (folder / "issame.txt").write_text("1\n0\n")
    found = open_verification(folder)
    np.testing.assert_array_equal(decode_batch(list(found.images))[0], rgb)
    assert found.issame.tolist() == [True, False]
    (folder / "issame.txt").write_text("1\nyes\n")
    with pytest.raises(InputError, match=r"issame.txt: line 2 is neither 0 nor 1"):
        open_verification(folder)


def test_npy_of_pickled_objects_is_refused(tmp_path):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "issame.txt").write_text("1\n")
    np.save(folder / "evil.npy", np.array([Attack(os.system, f"touch {tmp_path / 'executed'}")] * 2), allow_pickle=True)
    with pytest.raises(InputError, match=r"evil.npy: not an array that can be read"):
        open_verification(folder)
    assert not (tmp_path / "executed").exists()


def test_what_is_no_verification_set(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"x.bin: not a verification set; give"):
        open_verification(tmp_path / "x.bin")
    with pytest.raises(InputError, match=r"y.bin: no such file"):
        open_verification(tmp_path / "y.bin")


def small_bin(protocol):
    stream = io.BytesIO()
    pickle.dump(([b"image", np.arange(5, dtype=np.uint8)] * 2, [True, np.False_]), stream, protocol)
    return stream.getvalue()


@pytest.fixture
def photographs(tmp_path):
    """images/<person>/<number>.png of three people."""
    names = [f"{person}/{number}.png" for person in "abc" for number in (1, 2)]
    for number, name in enumerate(names):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"%d" % number)
    return names


PAIR_LISTS = {
    "yakhyo": lambda a, b, same: f"{int(same)} {a} {b}",
    "InsightFace": lambda a, b, same: f"{a} {b} {int(same)}",
    "tabs": lambda a, b, same: f"{a}\t{b}\t{int(same)}",
    "CVLface": lambda a, b, same: f"7,{a},{b},{same}",
}


@pytest.mark.parametrize("header", ["", "path1 path2 is_same\n"])
@pytest.mark.parametrize("dialect", PAIR_LISTS)
def test_lists_of_pairs(tmp_path, photographs, dialect, header):
    pairs = [
        (photographs[0], photographs[1], True),
        (photographs[2], photographs[4], False),
        (photographs[0], photographs[5], False),
    ]
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "ann.txt").write_text(header + "\n".join(PAIR_LISTS[dialect](*pair) for pair in pairs) + "\n")
    found = open_verification(lists / "ann.txt")
    assert found.issame.tolist() == [True, False, False]
    assert [record.key for record in found.images] == [side for pair in pairs for side in pair[:2]]
    assert [record.image for record in found.images[:2]] == [b"0", b"1"]
    with pytest.raises(InputError, match="is a verification set"):
        open_reader(lists / "ann.txt")


CSV_LISTS = {
    "CVLface": (",A,B,is_same,cossim", "0,{a},{b},{flag},0.4321"),
    "with names": ("pair_id,fold_id,is_same,image_a,image_b,path_a,path_b", "7,3,{flag},{name_a},{name_b},{a},{b}"),
    "quoted": ('"A","B","is_same"', '"{a}","{b}","{flag}"'),
}


@pytest.mark.parametrize("layout", CSV_LISTS)
@pytest.mark.parametrize("true", ["1", "True", "true"])
def test_csv_with_a_column_is_same(tmp_path, photographs, layout, true):
    header, line = CSV_LISTS[layout]
    pairs = [(photographs[0], photographs[1], true), (photographs[2], photographs[4], "0")]
    rows = [line.format(a=a, b=b, name_a=a[2:], name_b=b[2:], flag=flag) for a, b, flag in pairs]
    (tmp_path / "pairs.csv").write_text("\n".join([header, *rows]) + "\n")
    found = open_verification(tmp_path / "pairs.csv")
    assert found.issame.tolist() == [True, False]
    assert [record.key for record in found.images] == [photographs[i] for i in (0, 1, 2, 4)]
    (tmp_path / "pairs.csv").write_text(f"{header}\n{rows[0]}\n1,x.jpg\n")
    with pytest.raises(InputError, match=r"pairs.csv: line 3 is not two images and 0 or 1"):
        open_verification(tmp_path / "pairs.csv")


def test_csv_that_does_not_say_who_is_the_same(tmp_path, photographs):
    (tmp_path / "pairs.csv").write_text(f",A,B\n0,{photographs[0]},{photographs[1]}\n")
    with pytest.raises(InputError, match=r"pairs.csv: has no column is_same; add one"):
        open_verification(tmp_path / "pairs.csv")


def test_lists_of_magface(tmp_path, photographs):
    (tmp_path / "img.list").write_text("\n".join(photographs[:4]))
    (tmp_path / "pair.list").write_text("0 1 1\n2 3 0\n")
    found = open_verification(tmp_path / "pair.list")
    assert found.issame.tolist() == [True, False]
    assert [record.key for record in found.images] == photographs[:4]
    (tmp_path / "pair.list").write_text("0 1 1\n")
    with pytest.raises(InputError, match=r"has 1 pairs, but img.list 4 images"):
        open_verification(tmp_path / "pair.list")


def test_lists_of_pairs_that_cannot_be_used(tmp_path, photographs):
    path = tmp_path / "ann.txt"
    path.write_text(f"1 {photographs[0]} {photographs[1]}\n1 {photographs[0]}\n")
    with pytest.raises(InputError, match=r"ann.txt: line 2 is not two images and 0 or 1"):
        open_verification(path)
    path.write_text("1 x/1.png x/2.png\n")
    with pytest.raises(InputError, match=r"its first image, 'x/1.png', lies neither"):
        open_verification(path)
    path.write_text(f"1 {photographs[0]} x/2.png\n")
    with pytest.raises(InputError, match=r"ann.txt: image 1, .*x/2.png, cannot be read"):
        _ = open_verification(path).images[1]
