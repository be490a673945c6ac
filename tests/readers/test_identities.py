"""Whatever numbers or names a set has for its people: labels without gaps, and what was written is kept."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import h5py
import lmdb
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marginface.convert import convert
from marginface.errors import InputError
from marginface.evaluate import open_benchmark
from marginface.inspect import inspect
from marginface.readers import open_reader
from marginface.readers.recordio_format import frame, pack

IMAGES = 4  # of each identity


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def image(number: int) -> bytes:
    return cv2.imencode(".png", np.full((8, 8, 3), number, np.uint8))[1].tobytes()


def write_records(folder: Path, labels: Sequence[object]) -> Path:
    folder.mkdir()
    chunks = [frame(pack([int(label)], key, image(key))) for key, label in enumerate(labels, start=1)]
    (folder / "train.rec").write_bytes(b"".join(chunks))
    return folder


def write_shards(folder: Path, labels: Sequence[object]) -> Path:
    folder.mkdir()
    with tarfile.open(folder / "train-000000.tar", "w") as archive:
        for key, label in enumerate(labels, start=1):
            for name, content in ((f"{key}.png", image(key)), (f"{key}.cls", f"{label}\n".encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return folder


def write_lmdb(folder: Path, labels: Sequence[object]) -> Path:
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for index, label in enumerate(labels):
            transaction.put(str(index).encode(), msgpack.packb((image(index + 1), label)))
        transaction.put(b"__len__", msgpack.packb(len(labels)))
    return folder


def write_table(folder: Path, labels: Sequence[object]) -> Path:
    folder.mkdir()
    images = [image(key) for key in range(1, len(labels) + 1)]
    pq.write_table(pa.table({"image": images, "label": list(labels)}), folder / "train.parquet")
    return folder


def write_list(folder: Path, labels: Sequence[object]) -> Path:
    folder.mkdir()
    lines = []
    for key, label in enumerate(labels, start=1):
        (folder / f"{key}.png").write_bytes(image(key))
        lines.append(f"{key}.png\t{label}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def write_groups(folder: Path, labels: Sequence[object]) -> Path:
    with h5py.File(folder, "w") as file:
        for key, label in enumerate(labels, start=1):
            file[f"{label}/{key:04d}.png"] = np.frombuffer(image(key), np.uint8)
    return folder


def write_images(folder: Path, labels: Sequence[object]) -> Path:
    for key, label in enumerate(labels, start=1):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / str(label) / f"{key:04d}.png").write_bytes(image(key))
    return folder


WRITERS: dict[str, Callable[[Path, Sequence[object]], Path]] = {
    one.__name__[6:]: one
    for one in (write_records, write_shards, write_lmdb, write_table, write_list, write_groups, write_images)
}
NUMBERS = {
    "gaps": [100 * person for person in range(1, 9)],
    "unsorted": [700, 3, 41, 5],
    "16 million": [16_000_000 + 7 * person for person in range(5)],
    "a billion": [1_000_000_000 + 1009 * person for person in range(5)],
}
NAMED = ("shards", "table", "list", "groups", "images")


def check(path: Path, people: Sequence[object]) -> None:
    """Every image has the label of what was written for it, and no label is without images."""
    written = [person for _ in range(IMAGES) for person in people]
    reader = open_reader(path)
    assert reader.num_classes == len(people)
    assert sorted(np.bincount(reader.labels).tolist()) == [IMAGES] * len(people)
    names = getattr(reader, "class_names", None)
    for row, record in enumerate(reader.read(range(len(reader)))):
        assert record.label == reader.labels[row]
        assert isinstance(record.image, bytes)
        person = written[int(cv2.imdecode(np.frombuffer(record.image, np.uint8), 0)[0, 0]) - 1]
        assert str(person) == (str(record.label) if names is None else names[record.label])


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("numbers", NUMBERS)
def test_labels_have_no_gaps_in_any_format(tmp_path: Path, kind: str, numbers: str) -> None:
    people = NUMBERS[numbers]
    path = WRITERS[kind](tmp_path / "set", people * IMAGES)
    if kind == "records" and numbers == "a billion":
        with pytest.raises(
            InputError, match=r"its label 1000000000 is no whole number below 16,777,216, which float32"
        ):
            open_reader(path)
        return
    check(path, people)


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("to", ["folder", "recordio", "parquet", "webdataset"])
def test_names_survive_where_they_exist_and_in_what_convert_writes(tmp_path: Path, kind: str, to: str) -> None:
    people = ["zoë", "ann", "Bob", "Name With Blanks", "50"]
    path = WRITERS[kind](tmp_path / "set", people * IMAGES)
    check(path, people)
    convert(str(path), tmp_path / "out", to)
    check(tmp_path / "out", people)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("to", ["folder", "recordio", "parquet", "webdataset"])
def test_convert_keeps_the_numbers_that_were_written(tmp_path: Path, kind: str, to: str) -> None:
    path = WRITERS[kind](tmp_path / "set", NUMBERS["unsorted"] * IMAGES)
    convert(str(path), tmp_path / "out", to)
    check(tmp_path / "out", NUMBERS["unsorted"])


@pytest.mark.parametrize("kind", WRITERS)
def test_one_person_alone_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"set.*: holds one identity only \((7|7.0)\); training needs two or more"):
        open_reader(WRITERS[kind](tmp_path / "set", [7] * 3))


def write_insightface(folder: Path, order: Sequence[int], keyed_by_place: bool = False) -> Path:
    """8 people of IMAGES images, their identity records and the header, in `order` of the usual places."""
    people, images = 8, 8 * IMAGES
    records = [([key // IMAGES], image(key + 1)) for key in range(images)]
    records += [([1 + IMAGES * one, 1 + IMAGES * (one + 1)], b"") for one in range(people)]
    records.append(([images + 1, images + people + 1], b""))
    keys = [*range(1, images + people + 1), 0]
    folder.mkdir()
    offset, lines, body = 0, [], b""
    for place, number in enumerate(order):
        labels, content = records[number]
        key = place if keyed_by_place else keys[number]
        chunk = frame(pack(labels, key, content))
        lines.append(f"{key}\t{offset}\n")
        offset += len(chunk)
        body += chunk
    (folder / "train.rec").write_bytes(body)
    (folder / "train.idx").write_text("".join(lines))
    (folder / "property").write_text("8,8,8\n")
    return folder


@pytest.mark.parametrize("keyed_by_place", [False, True])
@pytest.mark.parametrize("index", ["with", "without"])
def test_identity_records_among_the_images_are_no_people(tmp_path: Path, keyed_by_place: bool, index: str) -> None:
    order = np.random.default_rng(3).permutation(8 * IMAGES + 9).tolist()
    folder = write_insightface(tmp_path / "set", order, keyed_by_place)
    if index == "without":
        (folder / "train.idx").unlink()
    reader = open_reader(folder)
    assert (len(reader), reader.num_classes) == (8 * IMAGES, 8)
    for record in reader.read(range(len(reader))):
        assert isinstance(record.image, bytes)
        number = int(cv2.imdecode(np.frombuffer(record.image, np.uint8), 0)[0, 0]) - 1
        assert record.label == number // IMAGES
    findings, _ = inspect(str(folder))
    assert (findings.stated_classes, findings.without_images) == (None, [])


def test_declared_identities_without_images_are_named(tmp_path: Path) -> None:
    folder = write_records(tmp_path / "rec", [0, 2, 0, 2])
    (folder / "property").write_text("4,8,8\n")
    assert inspect(str(folder))[0].without_images == ["1", "3"]
    assert inspect(str(folder))[0].stated_classes is None
    table = pa.table({"image": [image(1), image(2)], "label": [2, 0]})
    features = {"label": {"names": ["ann", "bob", "carl"], "_type": "ClassLabel"}}
    about = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), tmp_path / "a.parquet")
    findings, reader = inspect(str(tmp_path / "a.parquet"))
    assert findings.without_images == ["bob"]
    assert list(getattr(reader, "class_names", [])) == ["ann", "carl"]


@pytest.mark.parametrize("name", ["train.rec", "train-000001.tar", "data/train-00001.parquet", "b.parquet"])
def test_an_empty_file_among_the_data_is_named(tmp_path: Path, name: str) -> None:
    folder = write_shards(tmp_path / "set", [0, 1]) if name.endswith("tar") else write_table(tmp_path / "set", [0, 1])
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    for path in (folder, folder / name):
        with pytest.raises(InputError, match=rf"{name}: is empty \(0 bytes\)"):
            open_reader(path)
    (tmp_path / "lfw.bin").touch()
    with pytest.raises(InputError, match=r"lfw.bin: is empty \(0 bytes\)"):
        open_benchmark(str(tmp_path / "lfw.bin"))
