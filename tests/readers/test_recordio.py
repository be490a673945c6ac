"""Against files that MXNet wrote, a second writer here, and every kind of damage."""

import hashlib
import json
import os
import shutil
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import golden_files
from marginface.errors import InputError
from marginface.readers import open_reader, recordio
from marginface.readers.recordio import RecordIOReader
from marginface.readers.recordio_format import MAGIC_BYTES, frame, pack, read_record, unpack

SETS = [name for name in golden_files.entries("recordio/") if name.endswith("train.rec")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def copy_set(name, to):
    """A golden set where it may be written to."""
    shutil.copytree((golden_files.FOLDER / name).parent, to, copy_function=shutil.copyfile)
    return to


def expected(name):
    return json.loads((golden_files.FOLDER / golden_files.entry(name)["expected"]).read_text())


def check_golden(reader, name):
    dataset = expected(name)["dataset"]
    by_key = {one["idx"]: one for one in expected(name)["records"]}
    records = reader.read(range(len(reader)))
    assert len(reader) == golden_files.entry(name)["n_images"]
    assert [int(r.key) for r in records] == dataset["image_indices"]
    assert [r.label for r in records] == dataset["labels"]
    assert reader.labels.tolist() == dataset["labels"]
    assert reader.labels.dtype == np.int64
    assert reader.num_classes == max(dataset["labels"]) + 1
    for record in records:
        assert hashlib.sha256(record.image).hexdigest() == by_key[int(record.key)]["payload_sha256"]


@pytest.mark.parametrize("name", SETS)
def test_golden_with_index(name, tmp_path):
    check_golden(open_reader(copy_set(name, tmp_path / "set")), name)


@pytest.mark.parametrize("name", SETS)
def test_golden_without_index_is_scanned_and_the_index_saved(name, tmp_path):
    folder = copy_set(name, tmp_path / "set")
    (folder / "train.idx").rename(tmp_path / "train.idx")
    check_golden(open_reader(folder), name)
    lines = sorted((tmp_path / "train.idx").read_text().splitlines())
    assert sorted((folder / "train.idx").read_text().splitlines()) == lines
    check_golden(open_reader(folder / "train.rec"), name)


@pytest.mark.parametrize("name", SETS)
def test_golden_in_a_folder_that_cannot_be_written_to(name, tmp_path, monkeypatch, cache):
    folder = copy_set(name, tmp_path / "set")
    (folder / "train.idx").unlink()

    def mkstemp(*args, dir, real=recordio.sidecar.replace_file.__wrapped__.__globals__["tempfile"].mkstemp, **kwargs):
        if os.fspath(dir) == os.fspath(folder):
            raise PermissionError("read-only")
        return real(*args, dir=dir, **kwargs)

    monkeypatch.setattr("marginface.files.tempfile.mkstemp", mkstemp)
    check_golden(open_reader(folder), name)
    assert not (folder / "train.idx").exists()
    assert list(cache.rglob("train.idx"))
    monkeypatch.setattr("marginface.readers.recordio_index.scan", None)
    check_golden(open_reader(folder), name)  # from the cache, without a scan


@pytest.mark.parametrize("name", SETS)
def test_golden_headers_beyond_the_exact_range_of_float32(name, tmp_path, monkeypatch):
    monkeypatch.setattr(recordio, "EXACT", 20)  # as if keys above 20 were rounded
    check_golden(open_reader(copy_set(name, tmp_path / "set")), name)


@pytest.mark.parametrize("name", SETS)
def test_writing_the_golden_records_again_gives_the_same_bytes(name):
    data = (golden_files.FOLDER / name).read_bytes()
    offset = 0
    for one in sorted(expected(name)["records"], key=lambda one: one["offset"]):
        record, following = read_record(data, one["offset"])
        assert one["offset"] == offset
        image = unpack(record)[2]
        assert pack(one["label"], one["id"], image, one["id2"]) == record
        assert frame(record) == data[offset:following]
        offset = following
    assert offset == len(data)


magics = st.lists(st.sampled_from([MAGIC_BYTES, b"", b"a", b"bc", b"def", b"\x0a\x23\xd7"]), max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(magics.map(b"".join), st.binary(max_size=20))
def test_any_bytes_survive_framing(record, before):
    before += bytes(-len(before) % 4)
    framed = frame(record)
    assert len(framed) % 4 == 0
    assert read_record(before + framed + b"more", len(before)) == (record, len(before) + len(framed))


def write_set(folder, records, order=None, **files):
    """records: {key: (labels, image)}; written in `order` of keys."""
    folder.mkdir(exist_ok=True)
    offset, lines, body = 0, [], b""
    for key in order or records:
        labels, image = records[key]
        chunk = frame(pack(labels, key, image))
        lines.append(f"{key}\t{offset}\n")
        offset += len(chunk)
        body += chunk
    (folder / "train.rec").write_bytes(body)
    (folder / "train.idx").write_text("".join(lines))
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


INSIGHTFACE = {
    0: ([6, 9], b""),
    1: ([0], b"first"),
    2: ([0], b"second"),
    3: ([1], b"third"),
    4: ([2], b"fourth"),
    5: ([2], b"fifth" + MAGIC_BYTES),
    6: ([1, 3], b""),
    7: ([3, 4], b""),
    8: ([4, 6], b""),
}


@pytest.mark.parametrize("order", [None, [1, 2, 3, 4, 5, 6, 7, 8, 0], [8, 3, 1, 0, 2, 7, 6, 5, 4]])
def test_header_wherever_it_stands(tmp_path, order):
    reader = RecordIOReader(write_set(tmp_path / "set", INSIGHTFACE, order) / "train.rec")
    assert [(r.key, r.label, r.image) for r in reader.read([0, 4, 2])] == [
        ("1", 0, b"first"),
        ("5", 2, b"fifth" + MAGIC_BYTES),
        ("3", 1, b"third"),
    ]
    assert reader.labels.tolist() == [0, 0, 1, 2, 2]
    assert reader.num_classes == 3
    assert not list(tmp_path.rglob("*.npy"))  # the identity records told the labels


def test_identity_records_that_disagree_with_the_images_are_not_believed(tmp_path):
    swapped = INSIGHTFACE | {6: ([1, 2], b""), 7: ([2, 4], b"")}
    reader = open_reader(write_set(tmp_path / "set", swapped))
    assert reader.labels.tolist() == [0, 0, 1, 2, 2]
    assert (tmp_path / "set/train.labels.npy").exists()
    np.testing.assert_array_equal(open_reader(tmp_path / "set").labels, [0, 0, 1, 2, 2])


def test_saved_labels_of_another_set_are_not_believed(tmp_path):
    images = {key: ([key // 2], b"image") for key in range(10)}
    folder = write_set(tmp_path / "set", images)
    np.save(folder / "train.labels.npy", np.arange(10))
    assert open_reader(folder).labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_im2rec_set_whose_first_image_has_two_labels_has_no_header(tmp_path):
    images = {key: ([key // 2, 7.5], b"image %d" % key) for key in [3, 0, 2, 1]}
    reader = open_reader(write_set(tmp_path / "set", images))
    assert [(r.key, r.label) for r in reader.read(range(4))] == [("3", 1), ("0", 0), ("2", 1), ("1", 0)]


def test_a_property_file_is_no_bound_of_labels(tmp_path):
    images = {key: ([100 * key + 100], b"image") for key in range(5)}
    for name, text in (("a", None), ("b", "5,112,112\n"), ("c", "501,112,112\n5\n")):
        reader = open_reader(write_set(tmp_path / name, images, **({"property": text} if text else {})))
        assert (reader.num_classes, reader.labels.tolist()) == (5, [0, 1, 2, 3, 4])
        assert list(reader.class_names) == ["100", "200", "300", "400", "500"]
        assert len(reader.without_images) == (496 if name == "c" else 0)
    with pytest.raises(InputError, match=r"property: should start with the number of classes"):
        open_reader(write_set(tmp_path / "d", images, property="112 x 112"))


@pytest.mark.parametrize("label", [-1, 0.5, float("nan"), float("inf"), 2.0**24])
@pytest.mark.parametrize("properties", [{"property": "5,112,112"}, {}])
def test_label_out_of_range_is_an_error_with_the_record(tmp_path, label, properties):
    images = {key: ([key], b"image") for key in range(5)} | {9: ([label], b"image")}
    reader = RecordIOReader(write_set(tmp_path / "set", images, **properties) / "train.rec")
    reader.read(range(5))
    with pytest.raises(InputError, match=r"train.rec: record 5 \(key 9, byte 200\) is damaged: its label"):
        reader.read([5])


def test_a_damaged_record_is_named_with_its_byte(tmp_path):
    folder = write_set(tmp_path / "set", {key: ([0], b"image") for key in range(100)})
    data = bytearray((folder / "train.rec").read_bytes())
    data[40 * 51] ^= 1
    (folder / "train.rec").write_bytes(data)
    with pytest.raises(InputError, match=r"record 51 \(key 51, byte 2040\) is damaged: byte 2040: no record starts"):
        open_reader(folder).read([51])
    (folder / "train.idx").unlink()
    with pytest.raises(InputError, match=r"train.rec: record 51 is damaged or cut short: byte 2040: no record"):
        open_reader(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "the index is empty"),
        ("0\t0\nhello\n", "line 2 is not a key and a byte offset"),
        ("0\t0\n1 2 3\n", "line 2 is not a key and a byte offset"),
        ("0\t0\n1\t2\n", r"line 2 puts a record at byte 2, .* file of 72 bytes"),
        ("0\t0\n1\t4096\n", "line 2 puts a record at byte 4096"),
        ("0\t0\n1\t99999999999999999999999\n", "line 2 puts a record at byte"),
        ("0\t0\n1\t-4\n", "line 2 is not a key and a byte offset"),
        ("0\t0\n1\t4\n", "no records start at byte 4 and others"),
    ],
)
def test_index_of_another_file(tmp_path, index, message):
    folder = write_set(tmp_path / "set", {0: ([0], b""), 1: ([1], b"image")})
    (folder / "train.idx").write_text(index)
    with pytest.raises(InputError, match=rf"train.idx: {message}.*; delete"):
        open_reader(folder)


@pytest.mark.parametrize("header", [[7, 10], [1e7, 1.2e7]])
def test_header_that_promises_more_than_the_index_has(tmp_path, header):
    folder = write_set(tmp_path / "set", INSIGHTFACE | {0: (header, b"")})
    with pytest.raises(InputError, match=r"train.idx: record 0 promises the keys . to .*; delete it"):
        open_reader(folder)


def test_several_files_in_a_folder(tmp_path):
    folder = write_set(tmp_path / "set", INSIGHTFACE)
    (folder / "train.rec").rename(folder / "a.rec")
    (folder / "train.idx").unlink()
    assert len(open_reader(folder)) == 5
    shutil.copy(folder / "a.rec", folder / "b.rec")
    with pytest.raises(InputError, match=r"several RecordIO files \(a.rec, b.rec\)"):
        open_reader(folder)


def test_keys_beyond_32_bits_and_many_records(tmp_path):
    images = {2**32 + key * 3: ([key % 10], b"%d" % key) for key in range(3000)}
    folder = write_set(tmp_path / "set", images)
    reader = open_reader(folder)
    assert reader.read([2999])[0].key == str(2**32 + 2999 * 3)
    assert reader.labels.tolist() == [key % 10 for key in range(3000)]


def test_forked_processes_share_the_mapping(tmp_path):
    images = {key: ([key % 7], b"%d" % key * 100) for key in range(500)}
    reader = open_reader(write_set(tmp_path / "set", images))
    children = []
    for child in range(3):
        process = os.fork()
        if process == 0:
            right = all(reader.read([i])[0].image == b"%d" % i * 100 for i in range(child, 500, 3))
            os._exit(0 if right else 1)
        children.append(process)
    assert [os.waitpid(process, 0)[1] for process in children] == [0, 0, 0]


def test_record_that_claims_half_a_gigabyte(tmp_path):
    folder = write_set(tmp_path / "set", INSIGHTFACE)
    data = bytearray((folder / "train.rec").read_bytes())
    struct.pack_into("<I", data, 44, (1 << 29) - 1)
    (folder / "train.rec").write_bytes(data)
    with pytest.raises(InputError, match=r"byte 40: a record claims 536,870,911 bytes where \d+ are left"):
        open_reader(folder).read([0])
