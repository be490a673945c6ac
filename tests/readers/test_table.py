"""Parquet and Arrow as Hugging Face `datasets` writes them, and other tables that people have."""

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from marginface.errors import InputError
from marginface.inspect import inspect
from marginface.loading.decode import decode_batch
from marginface.readers import open_reader, table_parts
from marginface.readers.table import TableReader
from marginface.readers.verification import open_verification

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number: int) -> bytes:
    return cv2.imencode(".png", np.full((112, 112, 3), number, np.uint8))[1].tobytes()


def faces(labels, image="image", label="label", names=None, paths=True):
    cells = [{"bytes": picture(i), "path": f"p/{i}.png" if paths else None} for i in range(len(labels))]
    table = pa.table({image: pa.array(cells, IMAGE), label: labels})
    if names:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return table


def write_arrow(table, path, streamed=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_stream if streamed else pa.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_parquet(table, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=3)


LABELS = [0, 1, 1, 2, 0, 2, 1, 1, 0, 2]


def check(reader, labels=LABELS):
    assert isinstance(reader, TableReader)
    order = np.random.default_rng(0).permutation(len(labels)).tolist()
    records = reader.read(order)
    assert [record.label for record in records] == [labels[i] for i in order]
    assert reader.labels.tolist() == labels
    assert reader.labels.dtype == np.int64
    assert [record.image for record in records] == [picture(i) for i in order]
    return [record.key for record in reader.read(range(len(labels)))]


@pytest.mark.parametrize("write", [write_parquet, write_arrow, lambda *a: write_arrow(*a, streamed=False)])
def test_files_of_each_kind(tmp_path, write):
    write(faces(LABELS, names=["ann", "bob", "carl"]), tmp_path / "x.data")
    reader = open_reader(tmp_path / "x.data")
    assert check(reader) == [f"p/{i}.png" for i in range(10)]
    assert list(reader.class_names) == ["ann", "bob", "carl"]


def test_folders_of_shards_and_splits(tmp_path):
    table = faces(LABELS)
    for write, folder in ((write_parquet, tmp_path / "hub" / "data"), (write_arrow, tmp_path / "disk" / "train")):
        suffix = "parquet" if write is write_parquet else "arrow"
        write(table[:4], folder / f"train-00000-of-00002.{suffix}")
        write(table[4:], folder / f"train-00001-of-00002.{suffix}")
        write(table, folder.parent / "test" / f"test-00000-of-00001.{suffix}")
        check(open_reader(folder.parent))


@pytest.mark.parametrize(("image", "label"), [("img", "identity"), ("jpg", "cls"), ("face", "person_id")])
def test_other_names_of_columns(tmp_path, image, label):
    write_parquet(faces(LABELS, image, label, paths=False), tmp_path / "x")
    assert check(open_reader(tmp_path / "x")) == [str(i) for i in range(10)]


def test_plain_bytes_and_labels_with_gaps_or_as_names(tmp_path):
    for labels in ([10, 70, 70, 900] * 2, ["ann", "bob", "bob", "zoe"] * 2):
        table = pa.table({"image": [picture(i) for i in range(8)], "label": labels})
        write_parquet(table, tmp_path / "x")
        reader = open_reader(tmp_path / "x")
        check(reader, [0, 1, 1, 2] * 2)
        assert list(reader.class_names) == [str(label) for label in sorted(set(labels))]


def test_threads_share_a_reader(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    write_parquet(faces(LABELS * 20), tmp_path / "x")
    reader = open_reader(tmp_path / "x")
    images = [picture(index) for index in range(200)]
    order = np.random.default_rng(0).permutation(np.tile(np.arange(200), 5)).tolist()
    with ThreadPoolExecutor(8) as pool:
        for index, records in zip(order, pool.map(lambda i: reader.read([i]), order), strict=True):
            assert records[0].image == images[index]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"image": [b"a"], "age": [1]}), "has no column of labels; its columns are image, age"),
        (pa.table({"photo": [b"a"], "label": [1]}), "has no column of images"),
        (pa.table({"image": [b"a", b"b"], "label": [1, 1]}), r"holds one identity only \(1\)"),
        (pa.table({"image": [b"a", b"b"], "label": [1, None]}), "should hold whole numbers or names, and no gaps"),
        (pa.table({"image": [b"a", b"b"], "label": [1.5, 2.5]}), "should hold whole numbers or names"),
        (pa.table({"image": [b"a", b"b"], "label": ["x", None]}), "should hold whole numbers or names"),
        (pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), "has no rows"),
        (faces([0, 3], names=["a", "b"]), "row 1 of part 0: its label 3 is none of those declared"),
        (faces([0, -1], names=["a", "b"]), "row 1 of part 0: its label -1 is none of those declared"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, table, message):
    write_parquet(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=rf"x.parquet: .*{message}"):
        open_reader(tmp_path / "x.parquet")


def test_images_that_are_not_embedded_and_row_groups_that_are_too_large(tmp_path, monkeypatch):
    table = pa.table({"image": pa.array([{"bytes": None, "path": "a.png"}] * 4, IMAGE), "label": [0, 1, 0, 1]})
    write_parquet(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x.parquet: its column image holds paths such as 'a.png' instead"):
        inspect(str(tmp_path / "x.parquet"))
    table = pa.table({"image": pa.array([{"bytes": b"image" * (n < 3), "path": "a"} for n in range(4)], IMAGE)})
    write_parquet(table.append_column("label", [[0, 1, 0, 1]]), tmp_path / "x.parquet")
    monkeypatch.setattr(table_parts, "LARGEST_GROUP", 10)
    with pytest.raises(InputError, match=r"x.parquet: row group 0 has \d+ bytes, .* 100 to 1000 rows"):
        open_reader(tmp_path / "x.parquet")


def test_without_pyarrow_the_cure_is_named(tmp_path, monkeypatch):
    write_parquet(faces(LABELS), tmp_path / "x.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"x.parquet: .* needs pyarrow, .*marginface\[parquet\]"):
        open_reader(tmp_path / "x.parquet")


def verification_table(order=(5, 0, 3, 2, 1, 4), same=(True, False, True)):
    rows = list(order)
    return pa.table(
        {
            "image": pa.array([{"bytes": picture(i), "path": None} for i in rows], IMAGE),
            "index": rows,
            "is_same": [same[i // 2] for i in rows],
        }
    )


def test_verification_set_of_cvlface(tmp_path):
    write_arrow(verification_table(), tmp_path / "lfw" / "data-00000-of-00001.arrow")
    found = open_verification(tmp_path / "lfw")
    assert found.issame.tolist() == [True, False, True]
    assert decode_batch(list(found.images))[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert (found.name, found.images[3].key, found.images[3].label) == ("lfw", "lfw:3", 1)
    write_arrow(verification_table(order=(0, 1, 2, 2, 4, 5)), tmp_path / "lfw" / "data-00000-of-00001.arrow")
    with pytest.raises(InputError, match="two rows for each pair"):
        open_verification(tmp_path / "lfw")
