"""WebDataset shards, as other tools write them too."""

import io
import json
import tarfile

import pytest

from marginface.errors import InputError
from marginface.readers import open_reader
from marginface.readers.shards import ShardsReader


def write(path, samples, layout=tarfile.USTAR_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=layout) as archive:
        for name, content in samples:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def sample(number, label, **about):
    parts = [(f"d/{number:04d}.jpg", b"image %d" % number), (f"d/{number:04d}.cls", b"%d\n" % label)]
    return parts + ([(f"d/{number:04d}.json", json.dumps(about).encode())] if about else [])


def test_shards_in_their_order(tmp_path):
    write(tmp_path / "train-000001.tar", [*sample(3, 1), *sample(4, 0)], tarfile.PAX_FORMAT)
    write(tmp_path / "train-000000.tar", [*sample(0, 5), *sample(1, 0)[::-1], ("d/0002.txt", b"no image")])
    write(tmp_path / "val-000000.tar", sample(9, 9))
    reader = open_reader(tmp_path)
    assert isinstance(reader, ShardsReader)
    assert reader.num_classes == 3
    records = reader.read(range(4))
    assert [(r.image, r.label) for r in records] == [(b"image 0", 2), (b"image 1", 0), (b"image 3", 1), (b"image 4", 0)]
    assert len({record.key for record in records}) == 4
    assert list(reader.class_names) == ["0", "1", "5"]


def test_what_convert_writes_beside_the_images(tmp_path):
    samples = sample(0, 0, key="tom/1.jpg", identity="tom", num_classes=3) + sample(
        1, 2, key="zoe/1.jpg", identity="zoe"
    )
    reader = open_reader(write(tmp_path / "a.tar", samples))
    assert [record.key for record in reader.read([0, 1])] == ["tom/1.jpg", "zoe/1.jpg"]
    assert (reader.num_classes, list(reader.class_names)) == (2, ["tom", "zoe"])
    assert reader.without_images == ["1"]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([*sample(0, 0), ("d/0001.jpg", b"x")], r"sample d/0001, byte \d+, cannot be used: it has no .cls"),
        (
            [*sample(0, 0), ("d/0001.jpg", b"x"), ("d/0001.cls", b"tom")],
            "sample d/0001, .* cannot be used: its class number is tom",
        ),
        (sample(0, -1), "its class number is -1"),
        ([("d/1.cls", b"1")], "its shards hold no images"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path, samples, message):
    with pytest.raises(InputError, match=message):
        open_reader(write(tmp_path / "a.tar", samples))


def test_shards_of_this_machine_by_a_pattern(tmp_path):
    for number in range(3):
        write(tmp_path / f"train-{number:06d}.tar", sample(number, number))
    reader = open_reader(f"{tmp_path}/train-{{000000..000002}}.tar")
    assert [record.image for record in reader.read(range(3))] == [b"image 0", b"image 1", b"image 2"]
    with pytest.raises(InputError, match=r"train-000003.tar: no such file, which .*\{000000..000003\}.tar names"):
        open_reader(f"{tmp_path}/train-{{000000..000003}}.tar")
    with pytest.raises(InputError, match="should count upwards"):
        open_reader(f"{tmp_path}/train-{{000002..000000}}.tar")
    (tmp_path / "train-000003.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"train-000003.tar: is no tar file"):
        open_reader(f"{tmp_path}/train-{{000000..000003}}.tar")
