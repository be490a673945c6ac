"""Every set into every format and back; the bytes of MXNet's own files; interruptions and what they leave."""

import errno
import json
import pickle
import shutil
import subprocess
import sys
import tarfile

import cv2
import h5py
import lmdb as lmdb_library
import msgpack
import numpy as np
import pytest

import golden_files
from marginface import convert as convert_module
from marginface.convert import Selection, convert, convert_pairs
from marginface.errors import InputError
from marginface.loading.decode import decode
from marginface.readers import open_reader
from marginface.readers.base import Record
from marginface.readers.folder_writer import FolderWriter
from marginface.readers.recordio_format import MAGIC_BYTES
from marginface.readers.recordio_writer import RecordIOWriter
from marginface.readers.verification import open_verification
from marginface.readers.writer import Contents

FORMATS = ["folder", "recordio", "parquet", "webdataset"]
REFBUILDER = [name for name in golden_files.entries("recordio/refbuilder") if name.endswith("train.rec")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(number: int) -> bytes:
    return cv2.imencode(".png", np.full((12, 10, 3), number, np.uint8))[1].tobytes() + MAGIC_BYTES * (number % 3)


@pytest.fixture
def faces(tmp_path):
    """10 people with 1 to 10 images; more than 9, so that orders of names and of numbers differ."""
    for person in range(10):
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        for number in range(person + 1):
            (folder / f"{number}.png").write_bytes(png(10 * person + number))
    return tmp_path / "faces"


def everything(spec):
    reader = open_reader(spec)
    return [(record.image, record.label) for record in reader.read(range(len(reader)))]


def keys(spec):
    reader = open_reader(spec)
    return [record.key for record in reader.read(range(len(reader)))]


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_any_format_to_any_other_keeps_bytes_labels_and_order(faces, tmp_path, first, second):
    assert convert(str(faces), tmp_path / "one", first) == 55
    assert convert(str(tmp_path / "one"), tmp_path / "two", second, workers=3) == 55
    assert everything(tmp_path / "one") == everything(tmp_path / "two") == everything(faces)
    assert open_reader(tmp_path / "two").num_classes == 10
    if "recordio" not in (first, second):
        assert keys(tmp_path / "two") == keys(faces)
        assert list(open_reader(tmp_path / "two").class_names) == [f"p{person}" for person in range(10)]
    assert not list(tmp_path.glob("*.partial"))


def archive(faces, path):
    shutil.make_archive(str(path.with_suffix("")), path.suffix[1:], faces.parent, faces.name)
    return path


def hdf5(faces, path):
    with h5py.File(path, "w") as file:
        for image in sorted(faces.rglob("*.png")):
            file.create_dataset(str(image.relative_to(faces)), data=np.frombuffer(image.read_bytes(), np.uint8))
    return path


def lmdb(faces, path):
    images = [(image.read_bytes(), int(image.parent.name[1:])) for image in sorted(faces.rglob("*.png"))]
    with lmdb_library.open(str(path), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for number, pair in enumerate(images):
            transaction.put(str(number).encode(), msgpack.packb(pair, use_bin_type=True))
        transaction.put(b"__keys__", msgpack.packb([str(number).encode() for number in range(len(images))]))
        transaction.put(b"__len__", msgpack.packb(len(images)))
        transaction.put(b"__classnum__", msgpack.packb(20))
    return path


def tsv(faces, path):
    images = sorted(image.relative_to(faces.parent) for image in faces.rglob("*.png"))
    path.write_text("".join(f"{n}\t{image}\t{image.parent.name[1:]}\n" for n, image in enumerate(images)))
    return path


def index(faces, path):
    shutil.copytree(faces, path.parent / "imgs")
    path.write_text(",".join(map(str, range(100))))
    return path


SOURCES = {
    "zip": (archive, "faces.zip"),
    "tar": (archive, "faces.tar"),
    "HDF5": (hdf5, "faces.h5"),
    "LMDB": (lmdb, "faces.lmdb"),
    "list": (tsv, "train.tsv"),
    "AdaFace's index": (index, "index.txt"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_set_in_every_format(tmp_path, source):
    crowd = tmp_path / "crowd"
    for person in range(20):  # enough for ten folds of pairs, and images enough for AdaFace's rule
        (crowd / f"p{person:02d}").mkdir(parents=True)
        for number in range(5):
            (crowd / f"p{person:02d}" / f"{number}.png").write_bytes(png(5 * person + number))
    write, name = SOURCES[source]
    spec, expected = str(write(crowd, tmp_path / name)), everything(crowd)
    for to in FORMATS:
        assert convert(spec, tmp_path / to, to) == 100
        assert everything(tmp_path / to) == expected
    convert_pairs(spec, tmp_path / "pairs.bin")
    pairs = open_verification(tmp_path / "pairs.bin")
    label = dict(expected)
    images = [record.image for record in pairs.images]
    assert [label[one] == label[other] for one, other in zip(images[::2], images[1::2], strict=True)] == list(
        pairs.issame
    )


def test_a_folder_comes_out_of_a_folder_as_it_was(faces, tmp_path):
    convert(str(faces), tmp_path / "copy", "folder")
    files = {path.relative_to(faces): path.read_bytes() for path in faces.rglob("*.png")}
    assert {
        path.relative_to(tmp_path / "copy"): path.read_bytes() for path in (tmp_path / "copy").rglob("*.*")
    } == files


@pytest.mark.parametrize("name", REFBUILDER)
def test_recordio_is_written_byte_for_byte_as_insightface_does(name, tmp_path):
    folder = (golden_files.FOLDER / name).parent
    source = open_reader(folder)
    paths = [line.split("\t")[1] for line in (folder / "train.lst").read_text().splitlines()]
    (tmp_path / "out").mkdir()
    writer = RecordIOWriter(tmp_path / "out", Contents(source.labels, source.num_classes, None), {})
    records = source.read(range(len(source)))
    writer.write([Record(r.image, r.label, path) for r, path in zip(records, paths, strict=True)])
    writer.finish()
    for file in ("train.rec", "train.idx", "train.lst", "property"):
        assert (tmp_path / "out" / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.parametrize("name", golden_files.entries("recordio/bin/py3_bytes"))
def test_bin_is_written_byte_for_byte_as_the_reference_does(name, tmp_path):
    assert convert_pairs(str(golden_files.FOLDER / name), tmp_path / "out.bin") == golden_files.entry(name)["n_pairs"]
    assert (tmp_path / "out.bin").read_bytes() == (golden_files.FOLDER / name).read_bytes()


def test_the_synthetic_set_in_every_format(tmp_path):
    spec = "synthetic:identities=3,images=2"
    pixels = [record.image for record in open_reader(spec).read(range(6))]
    for to in ("folder", "recordio", "webdataset"):
        convert(spec, tmp_path / to, to)
        records = open_reader(tmp_path / to).read(range(6))
        assert [record.label for record in records] == [0, 0, 1, 1, 2, 2]
        for record, image in zip(records, pixels, strict=True):
            np.testing.assert_array_equal(decode(record), image)


def test_bin_of_drawn_pairs_and_of_a_pairs_file(tmp_path):
    convert_pairs("synthetic:identities=40,images=3", tmp_path / "drawn.bin")
    drawn = open_verification(tmp_path / "drawn.bin")
    assert drawn.issame.sum() * 2 == len(drawn.issame)
    root = tmp_path / "lfw"
    for person in range(4):
        for number in (1, 2):
            path = root / f"p{person}" / f"p{person}_{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{person} {number}".encode())
    (tmp_path / "pairs.txt").write_text("2\t1\np0\t1\t2\np0\t1\tp1\t2\np2\t1\t2\np2\t1\tp3\t2\n")
    convert_pairs(str(root), tmp_path / "lfw.bin", pairs=str(tmp_path / "pairs.txt"))
    images, issame = pickle.loads((tmp_path / "lfw.bin").read_bytes())
    assert images == [b"0 1", b"0 2", b"0 1", b"1 2", b"2 1", b"2 2", b"2 1", b"3 2"]
    assert issame == [True, False, True, False]


def test_selections_close_the_gaps_between_labels(faces, tmp_path):
    convert(str(faces), tmp_path / "a", "folder", Selection(min_images=5, identities=4, limit_per_identity=3))
    assert keys(tmp_path / "a") == [f"p{person}/{number}.png" for person in (4, 5, 6, 7) for number in range(3)]
    convert(str(faces), tmp_path / "b", "recordio", Selection(min_images=9))
    assert open_reader(tmp_path / "b").labels.tolist() == [0] * 9 + [1] * 10
    assert open_reader(tmp_path / "b").num_classes == 2
    with pytest.raises(InputError, match="Nothing is left"):
        convert(str(faces), tmp_path / "c", "folder", Selection(min_images=11))
    assert not list(tmp_path.glob("c*"))


def test_subset_by_keys(faces, tmp_path):
    (tmp_path / "list.txt").write_text("p7/3.png\np2/1.png\n\np2/0.png\n")
    convert(str(faces), tmp_path / "a", "folder", Selection(subset=str(tmp_path / "list.txt")))
    assert keys(tmp_path / "a") == ["p2/0.png", "p2/1.png", "p7/3.png"]
    (tmp_path / "list.txt").write_text("p7/3.png\np7/33.png\n")
    with pytest.raises(InputError, match=r"list.txt: 1 of its 2 keys are not in the set"):
        convert(str(faces), tmp_path / "b", "folder", Selection(subset=str(tmp_path / "list.txt")))


def test_adaface_subset_counts_in_the_order_of_its_image_folder(tmp_path):
    """AdaFace unpacks a RecordIO set into imgs/<label>/<key>.jpg; its index counts those, "10" before "2"."""
    for label in range(12):
        folder = tmp_path / "set" / "imgs" / str(label)
        folder.mkdir(parents=True)
        for number in range(6):
            (folder / f"{label * 6 + number + 1}.jpg").write_bytes(b"%d %d" % (label, number))
    in_folder = everything(tmp_path / "set")
    numbers = [n for n in range(72) if n % 7 != 0 and not 20 <= n < 26]
    (tmp_path / "index.txt").write_text(",".join(map(str, numbers)))
    selection = Selection(subset=str(tmp_path / "index.txt"), min_images=5)
    convert(str(tmp_path / "set"), tmp_path / "subset", "recordio", selection)
    kept = [in_folder[n] for n in numbers]
    counts = np.bincount([label for _, label in kept], minlength=12)
    expected = [(image, int((counts[:label] >= 5).sum())) for image, label in kept if counts[label] >= 5]
    assert everything(tmp_path / "subset") == expected

    # the same set as RecordIO, in the order of the numbers, gives the same images
    (tmp_path / "rec").mkdir()
    writer = RecordIOWriter(tmp_path / "rec", Contents(np.repeat(np.arange(12), 6), 12, None), {})
    writer.write([Record(b"%d %d" % (label, number), label, "x") for label in range(12) for number in range(6)])
    writer.finish()
    convert(str(tmp_path / "rec"), tmp_path / "subset2", "recordio", selection)
    assert {image for image, _ in everything(tmp_path / "subset2")} == {image for image, _ in expected}


@pytest.mark.parametrize("to", FORMATS)
def test_an_interrupted_conversion_looks_incomplete_and_goes_on(faces, tmp_path, monkeypatch, to):
    monkeypatch.setattr(convert_module, "TOGETHER", 4)
    monkeypatch.setattr(convert_module, "JOURNAL_EVERY", 1)
    monkeypatch.setattr("marginface.readers.shards_writer.RECORDS_A_SHARD", 5)
    monkeypatch.setattr("marginface.readers.table_writer.SHARD_BYTES", 300)
    monkeypatch.setattr("marginface.readers.table_writer.ROWS_A_GROUP", 2)
    convert(str(faces), tmp_path / "whole", to)
    read = []

    def stop(done, total):
        read.append(done)
        if len(read) == 5:
            raise KeyboardInterrupt

    for _ in range(2):  # interrupted twice, further each time
        read.clear()
        with pytest.raises(KeyboardInterrupt):
            convert(str(faces), tmp_path / "out", to, progress=stop)
        assert not (tmp_path / "out").exists()
        assert (tmp_path / "out.partial").exists()
    first = read[0]
    read.clear()
    convert(str(faces), tmp_path / "out", to, progress=lambda done, total: read.append(done))
    assert first > 4
    assert read[0] > first
    files = {path.relative_to(tmp_path / "out"): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert files == {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*.*")}


def test_killed_while_writing(faces, tmp_path):
    """SIGKILL between two journal entries: what was written after the last one is written again."""
    script = (
        "import os, marginface.convert as c\nc.TOGETHER, c.JOURNAL_EVERY = 4, 2\n"
        f"c.convert({str(faces)!r}, {str(tmp_path / 'out')!r}, 'recordio',"
        " progress=lambda done, total: os.kill(os.getpid(), 9) if done >= 44 else None)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    with pytest.raises(InputError, match="no such file"):
        open_reader(tmp_path / "out")
    convert(str(faces), tmp_path / "out", "recordio")
    assert everything(tmp_path / "out") == everything(faces)


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(faces, tmp_path, monkeypatch):
    def full(writer, records):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordIOWriter, "write", full)
    with pytest.raises(InputError, match=r"out: No space left on device; .*same command .*out\.partial"):
        convert(str(faces), tmp_path / "out", "recordio")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    convert(str(faces), tmp_path / "out", "recordio")
    assert everything(tmp_path / "out") == everything(faces)


def test_what_is_there_is_never_overwritten(faces, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InputError, match=r"out exists already"):
        convert(str(faces), tmp_path / "out", "folder")
    (tmp_path / "out.bin").touch()
    with pytest.raises(InputError, match=r"out.bin exists already"):
        convert_pairs(str(faces), tmp_path / "out.bin")
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "mine").touch()
    with pytest.raises(InputError, match=r"new.partial: was left half-written by another conversion"):
        convert(str(faces), tmp_path / "new", "folder")
    with pytest.raises(InputError, match=r"--to zip: not a format that is written; choose folder, recordio"):
        convert(str(faces), tmp_path / "other", "zip")


def test_keys_never_lead_out_of_the_folder(tmp_path):
    names = ["../../evil.png", "/etc/evil.png", "a/../../b.png", "..", "good.png", ".hidden.png", "x\0y.png"]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, name in enumerate(names):
            for suffix, content in (
                (".png", png(number)),
                (".cls", b"%d" % (number % 2)),
                (".json", json.dumps({"key": name}).encode()),
            ):
                entry = tarfile.TarInfo(f"{number}{suffix}")
                entry.size = len(content)
                archive.addfile(entry, __import__("io").BytesIO(content))
    convert(str(tmp_path / "a.tar"), tmp_path / "deep" / "down" / "out", "folder")
    written = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".png")
    assert len(written) == 7
    assert all(path.is_relative_to(tmp_path / "deep" / "down" / "out") for path in written)
    assert len(open_reader(tmp_path / "deep" / "down" / "out")) == 7


def test_two_images_that_would_get_one_name(tmp_path):
    writer = FolderWriter(tmp_path / "out", Contents(np.zeros(2, np.int64), 1, None), {})
    with pytest.raises(InputError, match=r"two different images of this identity would get this name .key .b/1.png"):
        writer.write([Record(b"one", 0, "b\\1.png"), Record(b"two", 0, "b/1.png")])
