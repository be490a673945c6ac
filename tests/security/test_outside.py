"""What a data set of a stranger may reach: its own folder, and elsewhere only with --allow-outside.

Each case writes a set with one door to a picture that is none of its business. Nothing of that picture comes out,
the sentence names it and --allow-outside, and with that word the door is open.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ijb_set import write_ijb
from marginface import cli
from marginface.convert import convert
from marginface.detection.base import onnx_session
from marginface.detection.yunet import YuNet
from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.evaluate import open_benchmark
from marginface.evaluate.attributes import Attributes
from marginface.evaluate.embeddings_file import EmbeddingsFile
from marginface.gallery.photos import photos_in
from marginface.loading.loader import DataConfig
from marginface.readers import open_reader
from marginface.readers.base import Reader
from marginface.readers.containment import ALLOW_OUTSIDE, LONGEST, Bounds
from marginface.readers.verification import open_verification
from marginface.training.build import create_loader
from marginface.training.config import Config
from marginface.training.mixing import OldConfig
from marginface.video.annotate import open_video
from marginface.weights import load, load_head
from people import write_people
from readers_have import write_tinyface

SECRET = np.asarray(cv2.resize(np.random.default_rng(7).integers(0, 256, (7, 7, 3), np.uint8), (112, 112)))


def jpeg(picture: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", picture)[1])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tmp_path/private/ann and bob hold the secret; tmp_path/sets/set holds people and gets a door."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("ann", "bob"):
        (tmp_path / "private" / name).mkdir(parents=True)
        for number in range(1, 6):
            (tmp_path / "private" / name / f"{name}_000{number}.jpg").write_bytes(jpeg(SECRET))
    return write_people(tmp_path / "sets" / "set", 6, 3)


def private(home: Path) -> Path:
    return home.parent.parent / "private"


# doors into a labelled set: each makes the set out of a folder of people, and returns what the user opens


def linked_image(home: Path) -> Path:
    (home / "p01" / "p01_0004.jpg").symlink_to(private(home) / "ann" / "ann_0001.jpg")
    return home


def relative_link(home: Path) -> Path:
    (home / "p01" / "p01_0004.jpg").symlink_to("../../../private/ann/ann_0001.jpg")
    return home


def linked_person(home: Path) -> Path:
    (home / "ann").symlink_to(private(home) / "ann")
    return home


def linked_folder_below(home: Path) -> Path:
    (home / "p01" / "more").symlink_to(private(home) / "ann")
    return home


def link_to_a_link(home: Path) -> Path:
    (home / ".hidden").symlink_to(private(home))
    (home / "ann").symlink_to(".hidden/ann")
    return home


def linked_imgs(home: Path) -> Path:
    (home / "imgs").symlink_to(private(home))
    return home


def index_beside_linked_imgs(home: Path) -> Path:
    linked_imgs(home)
    (home / "index.txt").write_text(",".join(map(str, range(10))))
    return home / "index.txt"


def listed(home: Path, name: str, first: bool = False) -> Path:
    lines = [f"p0{person}/p0{person}_000{image}.jpg {person}" for person in range(6) for image in range(1, 4)]
    lines.insert(0 if first else 7, f"{name} 9")
    (home / "list.txt").write_text("\n".join(lines))
    return home / "list.txt"


def list_with_dots(home: Path) -> Path:
    return listed(home, "../../private/ann/ann_0001.jpg")


def list_with_dots_in_the_middle(home: Path) -> Path:
    return listed(home, "p01/../../../private/ann/ann_0001.jpg")


def list_that_begins_with_dots(home: Path) -> Path:
    return listed(home, "../../private/ann/ann_0001.jpg", first=True)


def list_with_a_whole_path(home: Path) -> Path:
    return listed(home, str(private(home) / "ann" / "ann_0001.jpg"))


def list_that_begins_with_a_whole_path(home: Path) -> Path:
    return listed(home, str(private(home) / "ann" / "ann_0001.jpg"), first=True)


def list_of_a_linked_image(home: Path) -> Path:
    return listed(linked_image(home), "p01/p01_0004.jpg")


def list_of_a_linked_folder(home: Path) -> Path:
    return listed(linked_person(home), "ann/ann_0001.jpg")


def list_beside_a_linked_folder(home: Path) -> Path:
    (home / "images").symlink_to(private(home))
    (home / "list.txt").write_text("ann/ann_0001.jpg 0\nann/ann_0002.jpg 1\n")
    return home / "list.txt"


def list_with_linked_points(home: Path) -> Path:
    names = [f"p0{person}/p0{person}_0001" for person in range(6)]
    (private(home) / "points.csv").write_text("\n".join(f"{name},{','.join('7' * 10)}" for name in names))
    (home / "loose_landmark_all.csv").symlink_to(private(home) / "points.csv")
    (home / "list.txt").write_text("\n".join(f"{name}.jpg" for name in names))
    return home / "list.txt"


def converted(home: Path, to: str) -> Path:
    """A set in another format that holds the secret too, in `private`."""
    (home / "ann").symlink_to(private(home) / "ann")
    convert(str(home), private(home) / to, to, allow_outside=True)
    return private(home) / to


def linked_record(home: Path) -> Path:
    there = converted(home, "recordio")
    (home.parent / "rec").mkdir()
    for file in there.iterdir():
        (home.parent / "rec" / file.name).symlink_to(file)
    return home.parent / "rec"


def linked_index(home: Path) -> Path:
    there = converted(home, "recordio")
    (there / "train.idx").rename(private(home) / "secret.idx")
    (there / "train.idx").symlink_to(private(home) / "secret.idx")
    return there / "train.rec"


def linked_property(home: Path) -> Path:
    there = converted(home, "recordio")
    (there / "property").rename(private(home) / "property")
    (there / "property").symlink_to(private(home) / "property")
    return there


def linked_table(home: Path) -> Path:
    pytest.importorskip("pyarrow")
    there = converted(home, "parquet")
    (home.parent / "table").mkdir()
    (home.parent / "table" / "train.parquet").symlink_to(next((there / "data").iterdir()))
    return home.parent / "table"


def linked_folder_of_a_table(home: Path) -> Path:
    pytest.importorskip("pyarrow")
    there = converted(home, "parquet")
    (home.parent / "table").mkdir()
    (home.parent / "table" / "data").symlink_to(there / "data")
    return home.parent / "table"


def linked_shard(home: Path) -> Path:
    there = converted(home, "webdataset")
    (home.parent / "shards").mkdir()
    (home.parent / "shards" / "train-000000.tar").symlink_to(there / "train-000000.tar")
    return home.parent / "shards"


def shard_of_this_machine(home: Path) -> Path:
    pytest.importorskip("webdataset")
    (home / "urls.txt").write_text(f"file://{converted(home, 'webdataset')}/train-000000.tar\n")
    return home / "urls.txt"


def linked_lmdb(home: Path) -> Path:
    lmdb, msgpack = pytest.importorskip("lmdb"), pytest.importorskip("msgpack")
    with lmdb.open(str(private(home) / "lmdb")) as environment, environment.begin(write=True) as transaction:
        for number in range(4):
            transaction.put(str(number).encode(), msgpack.packb((jpeg(SECRET), number % 2)))
        transaction.put(b"__len__", msgpack.packb(4))
    (home / "data.mdb").symlink_to(private(home) / "lmdb" / "data.mdb")
    return home


def hdf5(home: Path, add: Callable[..., object]) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(home / "faces.h5", "w") as file:
        for person in range(3):
            file.create_dataset(f"{person}/0.jpg", data=np.frombuffer(jpeg(SECRET[::-1, :, ::-1]), np.uint8))
        add(h5py, file)
    return home / "faces.h5"


def hdf5_with_external_storage(home: Path) -> Path:
    secret = private(home) / "ann" / "ann_0001.jpg"
    size = secret.stat().st_size
    return hdf5(home, lambda _, f: f.create_dataset("1/1.jpg", (size,), "u1", external=[(str(secret), 0, size)]))


def hdf5_with_a_relative_name(home: Path) -> Path:
    size = (private(home) / "ann" / "ann_0001.jpg").stat().st_size  # relative to where the program runs
    return hdf5(
        home, lambda _, f: f.create_dataset("1/1.jpg", (size,), "u1", external=[("private/ann/ann_0001.jpg", 0, size)])
    )


def hdf5_with_a_virtual_data_set(home: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    secret = np.frombuffer(jpeg(SECRET), np.uint8)
    with h5py.File(private(home) / "secret.h5", "w") as file:
        file["secret"] = secret

    def add(library, file) -> None:
        layout = library.VirtualLayout(secret.shape, "u1")
        layout[:] = library.VirtualSource(private(home) / "secret.h5", "secret", secret.shape)
        file.create_virtual_dataset("1/1.jpg", layout)

    return hdf5(home, add)


SETS = (
    *(linked_image, relative_link, linked_person, linked_folder_below, link_to_a_link, linked_imgs),
    *(index_beside_linked_imgs, list_with_dots, list_with_dots_in_the_middle, list_that_begins_with_dots),
    *(list_with_a_whole_path, list_that_begins_with_a_whole_path, list_of_a_linked_image, list_of_a_linked_folder),
    *(list_beside_a_linked_folder, linked_record, linked_table, linked_folder_of_a_table, linked_shard),
    *(shard_of_this_machine, linked_lmdb, hdf5_with_external_storage, hdf5_with_a_relative_name),
    hdf5_with_a_virtual_data_set,
)
COMPANIONS = (list_with_linked_points, linked_index, linked_property)
"""Doors to what belongs to a set but is no image."""


def images(reader: Reader) -> list[bytes]:
    return [bytes(record.image) for record in reader.read(range(len(reader)))]


def refused(use: Callable[[], object], what: Path) -> None:
    with pytest.raises(InputError, match="--allow-outside") as caught:
        use()
    assert str(what) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("door", SETS, ids=lambda door: door.__name__)
def test_a_set_is_read_from_its_own_folder(home: Path, door: Callable[[Path], Path]) -> None:
    path = door(home)
    refused(lambda: images(open_reader(path)), home.parent)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["convert", str(path), "out", "--to", "folder"])
    for file in (
        file for file in Path().rglob("*") if file.is_file() and not file.resolve().is_relative_to(private(home))
    ):
        assert jpeg(SECRET) not in file.read_bytes() or file.suffix in (".h5",), file
    assert jpeg(SECRET) in images(open_reader(path, allow_outside=True))
    cli.main(["convert", str(path), "open", "--to", "folder", "--allow-outside"])
    assert any(file.read_bytes() == jpeg(SECRET) for file in Path("open").rglob("*.jpg"))


@pytest.mark.parametrize("door", COMPANIONS, ids=lambda door: door.__name__)
def test_what_belongs_to_a_set_lies_beside_it(home: Path, door: Callable[[Path], Path]) -> None:
    path = door(home)
    refused(lambda: open_reader(path), path.parent)
    assert len(open_reader(path, allow_outside=True))


# doors into pairs

MANY = 10  # as many as there are folds


def write_memfile(folder: Path, pairs: int = MANY) -> Path:
    """AdaFace's set of the secret's colour, in `folder`/agedb_30."""
    (folder / "agedb_30" / "memfile").mkdir(parents=True)
    data = np.tile(SECRET.transpose(2, 0, 1)[None].astype("<f4") / 127.5 - 1, (2 * pairs, 1, 1, 1))
    (folder / "agedb_30" / "memfile" / "mem_file.dat").write_bytes(data.tobytes())
    conf = json.dumps({"shape": data.shape, "dtype": "float32"})
    (folder / "agedb_30" / "memfile" / "mem_file.dat.conf").write_text(conf)
    np.save(folder / "agedb_30_list.npy", np.arange(pairs) % 2 == 0)
    return folder / "agedb_30"


def linked_memfile(home: Path) -> Path:
    there = write_memfile(private(home))
    write_memfile(home)
    (home / "agedb_30" / "memfile" / "mem_file.dat").unlink()
    (home / "agedb_30" / "memfile" / "mem_file.dat").symlink_to(there / "memfile" / "mem_file.dat")
    return home / "agedb_30"


def linked_folder_of_a_memfile(home: Path) -> Path:
    there = write_memfile(private(home))
    (home / "agedb_30").mkdir()
    (home / "agedb_30" / "memfile").symlink_to(there / "memfile")
    np.save(home / "agedb_30_list.npy", np.arange(MANY) % 2 == 0)
    return home / "agedb_30"


def linked_truth_of_a_memfile(home: Path) -> Path:
    path = write_memfile(home)
    (home / "agedb_30_list.npy").rename(private(home) / "list.npy")
    (home / "agedb_30_list.npy").symlink_to(private(home) / "list.npy")
    return path


def linked_array(home: Path) -> Path:
    np.save(private(home) / "secret.npy", np.stack([SECRET] * 2 * MANY))
    (home / "pairs").mkdir()
    (home / "pairs" / "issame.txt").write_text("1\n0\n" * (MANY // 2))
    (home / "pairs" / "set.npy").symlink_to(private(home) / "secret.npy")
    return home / "pairs"


def linked_issame(home: Path) -> Path:
    path = linked_array(home)
    (path / "set.npy").unlink()
    np.save(path / "set.npy", np.stack([SECRET] * 2 * MANY))
    (path / "issame.txt").rename(private(home) / "issame.txt")
    (path / "issame.txt").symlink_to(private(home) / "issame.txt")
    return path


def pair_list(home: Path, name: str, first: bool = False) -> Path:
    lines = ["1 p01/p01_0001.jpg p01/p01_0002.jpg", "0 p01/p01_0001.jpg p02/p02_0001.jpg"] * (MANY // 2)
    lines.insert(0 if first else 1, f"1 {name} p01/p01_0001.jpg")
    (home / "ann.txt").write_text("\n".join(lines))
    return home / "ann.txt"


def pairs_with_dots(home: Path) -> Path:
    return pair_list(home, "p01/../../../private/ann/ann_0001.jpg")


def pairs_that_begin_with_dots(home: Path) -> Path:
    return pair_list(home, "../../private/ann/ann_0001.jpg", first=True)


def pairs_with_a_whole_path(home: Path) -> Path:
    return pair_list(home, str(private(home) / "ann" / "ann_0001.jpg"))


def pairs_of_a_linked_image(home: Path) -> Path:
    return pair_list(linked_image(home), "p01/p01_0004.jpg")


def linked_images_of_magface(home: Path) -> Path:
    names = "p01/p01_0001.jpg p01/p01_0002.jpg p02/p02_0001.jpg p03/p03_0001.jpg "
    (private(home) / "img.list").write_text(names * (MANY // 2))
    (home / "img.list").symlink_to(private(home) / "img.list")
    (home / "pair.list").write_text("0 1 1\n2 3 0\n" * (MANY // 2))
    return home / "pair.list"


def linked_pairs_of_cvlface(home: Path) -> Path:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"image": [jpeg(SECRET)] * 2 * MANY, "is_same": [True, True, False, False] * (MANY // 2)})
    parquet.write_table(table, private(home) / "train.parquet")
    (home / "table").mkdir()
    (home / "table" / "train.parquet").symlink_to(private(home) / "train.parquet")
    return home / "table"


PAIRS = (
    *(linked_memfile, linked_folder_of_a_memfile, linked_truth_of_a_memfile, linked_array, linked_issame),
    *(pairs_with_dots, pairs_that_begin_with_dots, pairs_with_a_whole_path, pairs_of_a_linked_image),
    *(linked_images_of_magface, linked_pairs_of_cvlface),
)


@pytest.mark.parametrize("door", PAIRS, ids=lambda door: door.__name__)
def test_stored_pairs_are_read_from_their_own_folder(home: Path, door: Callable[[Path], Path]) -> None:
    path = door(home)
    refused(lambda: open_verification(path).images[:], home)
    refused(lambda: open_benchmark(str(path)).images.take(range(4), 112), home)
    assert len(open_verification(path, allow_outside=True).images[:]) >= 4
    open_benchmark(str(path), allow_outside=True).images.take([0, 1], 112)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["convert", str(path), "out.bin", "--to", "bin"])
    assert not Path("out.bin").exists()
    cli.main(["convert", str(path), "out.bin", "--to", "bin", "--allow-outside"])


# doors into benchmarks: each returns the word for --benchmark


def write_list(home: Path, lines: list[str]) -> None:
    (home / "pairs.txt").write_text("\n".join(["2\t1", *lines]) + "\n")


PLAIN = ["p01\t1\t2", "p01\t1\tp02\t1", "p02\t1\t2", "p02\t1\tp03\t1"]


def person_with_dots(home: Path) -> str:
    (home.parent / "0001.jpg").write_bytes(jpeg(SECRET))
    write_list(home, [*PLAIN[:3], "p02\t1\t..\t1"])
    return f"pairs:{home}"


def person_with_a_whole_path(home: Path) -> str:
    write_list(home, [*PLAIN[:3], f"p02\t1\t{private(home) / 'ann'}\t1"])
    return f"pairs:{home}"


def linked_person_in_pairs(home: Path) -> str:
    linked_person(home)
    write_list(home, [*PLAIN[:3], "p02\t1\tann\t1"])
    return f"pairs:{home}"


def linked_image_in_pairs(home: Path) -> str:
    linked_image(home)
    write_list(home, [*PLAIN[:3], "p02\t1\tp01\t4"])
    return f"pairs:{home}"


def linked_list_of_pairs(home: Path) -> str:
    write_list(private(home), PLAIN)
    (home / "pairs.txt").symlink_to(private(home) / "pairs.txt")
    return f"pairs:{home}"


def linked_person_without_a_list(home: Path) -> str:
    linked_person(home)
    return f"pairs:{home}"


def linked_person_of_a_closed_set(home: Path) -> str:
    linked_person(home)
    return f"closedset:{home}"


def linked_image_of_a_closed_set(home: Path) -> str:
    linked_image(home)
    return f"closedset:{home}"


def lfw(home: Path) -> Path:
    """Landmarks and pairs of the people in home/set, and of the private ones."""
    names = [f"{person}/{person}_000{number}.jpg" for person in ("p01", "p02", "p03", "ann") for number in (1, 2)]
    points = "40 50 72 50 56 70 42 90 70 90"
    (home / "lfw_landmark.txt").write_text("\n".join(f"{name} {points}" for name in names))
    write_list(home, [*PLAIN[:3], "p02\t1\tann\t1"])
    return home


def linked_photographs_of_lfw(home: Path) -> str:
    root = lfw(home.parent)
    home.rename(private(home) / "set")
    home.symlink_to(private(home) / "set")
    (home / "ann").symlink_to(private(home) / "ann")
    return f"lfw:{root}"


def linked_landmarks_of_lfw(home: Path) -> str:
    lfw(linked_person(home))
    (home / "lfw_landmark.txt").rename(private(home) / "points.txt")
    (home / "lfw_landmark.txt").symlink_to(private(home) / "points.txt")
    return f"lfw:{home}"


def name_with_dots_in_ijb(home: Path) -> str:
    return ijb_with(home, "../../../../private/ann/ann_0001.jpg")


def whole_path_in_ijb(home: Path) -> str:
    return ijb_with(home, str(private(home) / "ann" / "ann_0001.jpg"))


def linked_image_in_ijb(home: Path) -> str:
    word = ijb_with(home, "99.jpg")
    (home / "IJBC" / "loose_crop" / "99.jpg").symlink_to(private(home) / "ann" / "ann_0001.jpg")
    return word


def linked_images_of_ijb(home: Path) -> str:
    write_ijb(home)
    (home / "IJBC" / "loose_crop").rename(private(home) / "loose_crop")
    (home / "IJBC" / "loose_crop").symlink_to(private(home) / "loose_crop")
    return f"ijbc:{home}"


def linked_meta_of_ijb(home: Path) -> str:
    write_ijb(home)
    file = home / "IJBC" / "meta" / "ijbc_1N_probe_mixed.csv"
    file.rename(private(home) / "probes.csv")
    file.symlink_to(private(home) / "probes.csv")
    return f"ijbc:{home}"


def ijb_with(home: Path, name: str) -> str:
    write_ijb(home)
    for file in ("ijbc_face_tid_mid.txt", "ijbc_name_5pts_score.txt"):
        path = home / "IJBC" / "meta" / file
        path.write_text(path.read_text().replace("\n3.jpg ", f"\n{name} "))
    return f"ijbc:{home}"


def linked_copies_of_tinyface(home: Path) -> str:
    write_tinyface(home.parent, home)
    aligned = home.parent / "aligned_pad_0.1_pad_high"
    aligned.rename(private(home) / "aligned")
    aligned.symlink_to(private(home) / "aligned")
    return f"tinyface:{home.parent}"


def linked_copy_of_tinyface(home: Path) -> str:
    write_tinyface(home.parent, home)
    copy = next((home.parent / "aligned_pad_0.1_pad_high").iterdir())
    copy.unlink()
    copy.symlink_to(private(home) / "ann" / "ann_0001.jpg")
    return f"tinyface:{home.parent}"


def linked_list_of_tinyface(home: Path) -> str:
    write_tinyface(home.parent, home)
    file = home.parent / "tinyface" / "Testing_Set" / "probe_img_ID_pairs.mat"
    file.rename(private(home) / "probes.mat")
    file.symlink_to(private(home) / "probes.mat")
    return f"tinyface:{home.parent}"


BENCHMARKS = (
    *(person_with_dots, person_with_a_whole_path, linked_person_in_pairs, linked_image_in_pairs, linked_list_of_pairs),
    *(linked_person_without_a_list, linked_person_of_a_closed_set, linked_image_of_a_closed_set),
    *(linked_photographs_of_lfw, linked_landmarks_of_lfw, name_with_dots_in_ijb, whole_path_in_ijb),
    *(linked_image_in_ijb, linked_images_of_ijb, linked_meta_of_ijb, linked_copies_of_tinyface),
    *(linked_copy_of_tinyface, linked_list_of_tinyface),
)


@pytest.mark.parametrize("door", BENCHMARKS, ids=lambda door: door.__name__)
def test_a_benchmark_is_read_from_its_own_folder(home: Path, door: Callable[[Path], str]) -> None:
    word = door(home)
    refused(lambda: open_benchmark(word), home.parent)
    images = open_benchmark(word, allow_outside=True).images
    images.check()
    images.take(range(len(images)), 112)


# doors into folders of photographs, and the verbs


@pytest.mark.parametrize("door", [linked_image, relative_link, linked_person, linked_folder_below, link_to_a_link])
def test_photographs_are_read_from_their_own_folder(home: Path, door: Callable[[Path], Path]) -> None:
    path = door(home)
    refused(lambda: list(photos_in(path)), home)
    assert jpeg(SECRET) in [photo.read_bytes() for photo in photos_in(path, allow_outside=True)]


VERBS = {
    "align": "align {set} out --detector auto",
    "compare": "compare a b --benchmark pairs:{set}",
    "convert": "convert {set} out",
    "embed": "embed {model} {set} -o out.npz",
    "evaluate": "evaluate {model} --benchmark pairs:{set}",
    "export": "export {model} --to onnx -o out.onnx --int8 {set} --benchmark pairs:{set}",
    "gallery": "gallery --allow-outside add {set}",
    "identify": "identify {set}",
    "inspect": "inspect {set}",
    "train": "train --config quickstart --data.train {set} --data.val [pairs:{set}]",
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_the_word(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([verb, "--help", *(["all"] if verb == "train" else [])])
    told = " ".join(capsys.readouterr().out.split())
    assert ("--data.allow_outside" if verb == "train" else "--allow-outside") in told
    assert ALLOW_OUTSIDE in told


@pytest.mark.parametrize("verb", ["convert", "embed", "evaluate", "inspect", "train"])
@pytest.mark.parametrize("door", [linked_image, linked_person], ids=lambda door: door.__name__)
def test_verbs_refuse_and_obey(home: Path, verb: str, door: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    Embedder.create(ModelConfig("small", 16, {"width": 4})).save("model")
    words = VERBS[verb].format(set=door(home), model="model").split()
    if verb == "train":
        words += ["--name", "run", "--train.epochs", "0.1", "--data.batch_size", "8", "--model.options", '{"width": 4}']
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert "is a symbolic link to" in (told := capsys.readouterr().err)
    assert "--allow-outside" in told
    assert not {path.name for path in Path().iterdir()} - {"model", "private", "sets", "cache"}
    cli.main([*words, "--allow-outside"])


# doors into other programs


FILMS = {
    "concat": "ffconcat version 1.0\nfile private/secret.mp4\n",
    "whole path": "ffconcat version 1.0\nfile {0}/private/secret.mp4\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{0}/private/secret.mp4\n#EXT-X-ENDLIST\n",
    "HLS of URLs": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\nfile://{0}/private/secret.mp4\n#EXT-X-ENDLIST\n",
    "SDP": "v=0\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("kind", FILMS)
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".m3u8", ".ffconcat", ".ts"])
def test_a_film_is_no_list_of_films(home: Path, kind: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|protocol_whitelist;file,http")
    film = cv2.VideoWriter("private/secret.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (112, 112))
    for _ in range(10):
        film.write(SECRET)
    film.release()
    assert open_video("private/secret.mp4").read()[0]
    (home.parent.parent / f"film{suffix}").write_text(FILMS[kind].format(Path.cwd()))
    with pytest.raises(InputError, match=rf"film{suffix}: the video cannot be opened"):
        open_video(f"film{suffix}")


@pytest.mark.parametrize("location", ["../private/secret.bin", "{0}/private/secret.bin", "link.bin"])
def test_a_network_holds_its_own_weights(home: Path, location: str) -> None:
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    (private(home) / "secret.bin").write_bytes(b"SECRET!!")
    (home / "link.bin").symlink_to(private(home) / "secret.bin")
    weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT8, dims=[8], data_location=1)
    for key, value in (("location", location.format(Path.cwd())), ("length", "8")):
        weights.external_data.add(key=key, value=value)
    value = onnx.helper.make_tensor_value_info
    sides = value("x", onnx.TensorProto.UINT8, [8]), value("y", onnx.TensorProto.UINT8, [8])
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [sides[0]], [sides[1]], [weights])
    opset = [onnx.helper.make_opsetid("", 14)]
    file = home / "network.onnx"
    file.write_bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    with pytest.raises(InputError, match=r"network.onnx cannot be read as an ONNX network"):
        onnx_session(file)
    for overlong in (b"\n\x08location", b"\n\x88\x00location", b"\x8a\x80\x00\x88\x80\x00location"):
        file.write_bytes(file.read_bytes().replace(b"\n\x08location", overlong))
        with pytest.raises(InputError, match=r"network.onnx keeps its weights in another file"):
            YuNet(file)


LINES = {
    "https://host/a.tar'; touch pwned; echo '": "letters that are none of a URL's",
    "https://host/$(touch pwned).tar": "letters that are none of a URL's",
    "https://host/`touch${IFS}pwned`.tar": "letters that are none of a URL's",
    "ais://bucket/a.tar&pwned": "letters that are none of a URL's",
    "gs://bucket/a.tar|pwned": "letters that are none of a URL's",
    "PIPE:touch pwned": "is a command",
    "https://host/a.tar::pipe:touch pwned": "is a command",
    "FILE:///etc/passwd": "is a file of this machine",
}


@pytest.mark.parametrize("line", LINES)
def test_a_list_of_shards_runs_nothing(home: Path, line: str) -> None:
    pytest.importorskip("webdataset")
    (home / "urls.txt").write_text(f"https://127.0.0.1:9/a.tar?x=1&y=2\n{line}\n")
    with pytest.raises(InputError, match=rf"urls.txt: line 2 .*{LINES[line]}"):
        open_reader(home / "urls.txt")
    assert not Path("pwned").exists()


@pytest.mark.parametrize("where", ["data", "old"])
@pytest.mark.parametrize(
    "spec",
    [
        "pipe:touch pwned",
        "Pipe:touch pwned",
        "pipe://usr/bin/touch pwned",
        "https://127.0.0.1:9/a.tar::pipe:touch pwned",
        "https://127.0.0.1:9/a.tar::{pipe,x}:touch pwned",
    ],
)
def test_a_configuration_runs_nothing(home: Path, where: str, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Be it a recipe or the run of a stranger; what the user types is his own."""
    pytest.importorskip("webdataset")
    Path("run").mkdir()
    Path("run/config.yaml").write_text(yaml.safe_dump({where: {"train": spec}}))
    for words in (["--config", "run/config.yaml"], ["--resume", "run"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["train", *words])
        assert f"{where}.train of the configuration is a command" in capsys.readouterr().err
        assert not Path("pwned").exists()
    if spec == "pipe:touch pwned" and where == "data":
        with pytest.raises(SystemExit, match="2"):
            cli.main(["train", "--config", "run/config.yaml", "--data.train", spec])
        assert "pipe:touch pwned: is no tar file" in capsys.readouterr().err
        assert Path("pwned").exists()


# names in a file that are no places to look at

OPENED: list[str] = []
sys.addaudithook(lambda event, words: OPENED.append(str(words[0])) if event == "open" else None)


def column_of_paths(home: Path, secret: str) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kind = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
    for images in ([secret] * 4, arrow.array([{"bytes": None, "path": secret}] * 4, kind)):
        parquet.write_table(arrow.table({"image": images, "label": [0, 1, 0, 1]}), home / "x.parquet")
        with pytest.raises(InputError, match=r"holds (no image bytes|paths)"):
            open_reader(home / "x.parquet", allow_outside=True).read([0])


def key_of_a_table(home: Path, secret: str) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": jpeg(SECRET), "path": path} for path in (secret, "../../private/ann/ann_0001.jpg")]
    parquet.write_table(arrow.table({"image": images, "label": [0, 1]}), home / "x.parquet")
    convert(str(home / "x.parquet"), "out", "folder")
    assert len(list(Path("out").rglob("*.jpg"))) == 2


def rows_of_attributes(home: Path, secret: str) -> None:
    (home / "about.csv").write_text(f"name,sex\n{secret},f\n../../private/ann/ann_0002.jpg,m\n")
    assert Attributes(home / "about.csv").values("sex", [secret]).tolist() == ["f"]


def keys_of_embeddings(home: Path, secret: str) -> None:
    keys = np.array([secret, "../../private/ann/ann_0002.jpg"])
    np.savez(home / "x.npz", embeddings=np.ones((2, 4), np.float32), keys=keys)
    assert EmbeddingsFile(home / "x.npz").rows is not None


@pytest.mark.parametrize("use", [column_of_paths, key_of_a_table, rows_of_attributes, keys_of_embeddings])
def test_names_in_a_file_open_nothing(home: Path, use: Callable[[Path, str], None]) -> None:
    before = sorted(private(home).rglob("*"))
    OPENED.clear()
    use(home, str(private(home) / "ann" / "ann_0001.jpg"))
    assert any(str(home) in path for path in OPENED)
    assert not [path for path in OPENED if Path(path).resolve().is_relative_to(private(home))]
    assert sorted(private(home).rglob("*")) == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "head.safetensors"])
def test_a_model_is_read_from_its_own_folder(home: Path, name: str) -> None:
    model, secret = home / "model", private(home) / "secret"
    Embedder.create(ModelConfig("small", 16, {"width": 4})).save(model)
    save_file({"weight": torch.zeros(3, 16)}, model / "head.safetensors")
    (model / name).rename(secret)
    for target in (secret, Path("../../../private/secret")):
        (model / name).symlink_to(target)
        with pytest.raises(InputError, match=rf"{name} is a symbolic link that leads out of the model's folder"):
            load(model), load_head(model)
        (model / name).unlink()
    (home / "run").mkdir()
    (home / "run" / "model").symlink_to(model)
    with pytest.raises(InputError, match=r"run/model is a symbolic link"):
        load(home / "run")


def test_the_hub_s_cache_is_read_through_its_links(home: Path) -> None:
    model, blobs = home / "models--a--b" / "snapshots" / "1", home / "models--a--b" / "blobs"
    Embedder.create(ModelConfig("small", 16, {"width": 4})).save(model)
    blobs.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).rename(blobs / name)
        (model / name).symlink_to(f"../../blobs/{name}")
    assert load(model).config.num_features == 16
    blobs.rename(private(home) / "blobs")
    blobs.symlink_to(private(home) / "blobs")
    with pytest.raises(InputError, match="leads out of the model's folder"):
        load(model)


# what is the user's own choice stays easy


def test_what_the_user_names_may_lie_anywhere(home: Path) -> None:
    """A folder, a file or a list that is a symbolic link, and a list elsewhere with its folder on the command line."""
    Path("faces").symlink_to(home)
    assert len(open_reader("faces")) == 18
    (home / "list.txt").write_text("".join(f"p0{person}/p0{person}_0001.jpg {person}\n" for person in range(6)))
    assert len(open_reader("faces/list.txt")) == 6
    convert("faces", "set", "recordio")
    Path("train.rec").symlink_to("set/train.rec")
    assert len(open_reader("train.rec")) == 18
    write_list(Path(), PLAIN)
    assert len(open_benchmark("pairs:faces,pairs=pairs.txt").images) == 5
    assert len(open_benchmark("closedset:faces").images) == 18
    assert len(list(photos_in("faces"))) == 18
    Path("one.jpg").symlink_to(home / "p01" / "p01_0001.jpg")
    assert [str(path) for path in photos_in("one.jpg")] == ["one.jpg"]


def test_links_within_the_folder_are_followed(home: Path) -> None:
    (home / ".store").mkdir()
    (home / "p01").rename(home / ".store" / "p01")
    (home / "p01").symlink_to(".store/p01")
    (home / "p02" / "p02_0001.jpg").rename(home / ".store" / "one.jpg")
    (home / "p02" / "p02_0001.jpg").symlink_to(home / ".store" / "one.jpg")
    reader = open_reader(home)
    assert len(images(reader)) == 18
    assert list(reader.class_names) == [f"p0{person}" for person in range(6)]
    (home / "list.txt").write_text("p01/../p01/p01_0001.jpg 0\n./p02/p02_0001.jpg 1\n" + f"{home}/p03/p03_0001.jpg 2")
    assert len(images(open_reader(home / "list.txt"))) == 3


@pytest.mark.parametrize(("link", "target"), [("p01/p01", ".."), ("p01/all", "../.."), ("p09", "p01"), ("p01/x", ".")])
def test_links_in_a_circle_end(home: Path, link: str, target: str) -> None:
    (home / link).symlink_to(target)
    for allow_outside in (False, True):
        with pytest.raises(InputError, match=r"which lies in the set already|outside of"):
            open_reader(home, allow_outside)


def test_a_list_is_not_searched_for_in_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "list.txt").write_text("ann_0001.jpg 0\nann_0002.jpg 1\n")
    for name in ("ann_0001.jpg", "ann_0002.jpg"):
        (home.parent / name).write_bytes(jpeg(SECRET))
    assert len(open_reader(home / "list.txt")) == 2  # published sets keep images beside the folder of their lists
    for folder in (home.parent, home.parent / "user"):
        monkeypatch.setenv("HOME", str(folder))
        with pytest.raises(InputError, match=r"its first image, 'ann_0001.jpg', lies neither in"):
            open_reader(home / "list.txt")
        assert len(open_reader(home / "list.txt", allow_outside=True)) == 2


def test_the_old_people_of_fine_tuning_obey_the_same_word(home: Path) -> None:
    linked_person(home)
    other = write_people(Path("other"), 3, 4)
    for train, old in ((home, other), (other, home)):
        for allow_outside in (False, True):
            data = DataConfig(train=str(train), batch_size=8, allow_outside=allow_outside)
            config = Config(data=data, old=OldConfig(train=str(old)))
            if allow_outside:
                create_loader(config, 0, 1)
            else:
                refused(lambda config=config: create_loader(config, 0, 1), home)


# the function itself

NAMES = st.sampled_from(["a", "b", "c", "..", ".", "", "a/b", "out", "x.jpg"])
PATHS = st.lists(NAMES, max_size=6).map("/".join)


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """(kind, path, target): folders, files and symbolic links that point anywhere, also in circles."""
    kinds = st.sampled_from(["folder", "file", "link", "link"])
    return draw(st.lists(st.tuples(kinds, PATHS, PATHS), max_size=12))


def grow(root: Path, tree: list[tuple[str, str, str]]) -> Path:
    """`root`/set with the tree in it, beside `root`/out."""
    for name in ("set/a/b", "out/a"):
        (root / name).mkdir(parents=True)
    (root / "out" / "x.jpg").touch()
    for kind, path, target in tree:
        place = root / "set" / path
        try:
            if kind == "folder":
                place.mkdir(parents=True)
            elif kind == "file":
                place.touch()
            else:
                place.symlink_to(target if len(path) % 2 else f"{root}/{target}")
        except (OSError, ValueError):  # it is there already, or its folder is not
            continue
    return root / "set"


def inodes(folder: Path) -> Iterator[tuple[int, int]]:
    """Of the folder and of all that lies in it, no link followed: what may be reached."""
    for where, _, files in os.walk(folder):
        for entry in (where, *(os.path.join(where, file) for file in files)):  # noqa: PTH118
            found = os.lstat(entry)
            yield found.st_dev, found.st_ino


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(trees(), st.lists(PATHS, min_size=1, max_size=8), st.booleans())
def test_the_kernel_agrees_on_what_lies_outside(tmp_path_factory, tree, paths: list[str], whole: bool) -> None:
    root = tmp_path_factory.mktemp("tree")
    folder = grow(root, tree)
    reachable, bounds = set(inodes(folder)), Bounds(folder)
    for path in paths:
        full = f"{root}/{path}" if whole else f"{folder}/{path}"
        try:
            found = os.stat(full)  # noqa: PTH116
        except OSError:
            continue
        inside = (found.st_dev, found.st_ino) in reachable
        assert bounds.holds(full) == inside
        for check in (bounds.check, lambda path: bounds.check_all([path]), Bounds(folder).check):
            if inside:
                check(full)
            else:
                refused(lambda check=check, full=full: check(full), folder)
        Bounds(folder, allow_outside=True).check(full)


@given(st.text(alphabet=st.characters(), max_size=30), st.integers(0, 2 * LONGEST))
def test_any_name_is_decided(tmp_path_factory, name: str, length: int) -> None:
    bounds = Bounds(tmp_path_factory.getbasetemp())
    for path in (name, f"{tmp_path_factory.getbasetemp()}/{name}", name * (length // max(len(name), 1))):
        Bounds("/", allow_outside=True).check(path)
        for either in (bounds, Bounds("/")):
            with contextlib.suppress(InputError):
                either.check(path)


def test_a_name_of_many_steps_takes_no_time(tmp_path: Path) -> None:
    for path in ("a/" * (1 << 20) + "../" * (1 << 20) + "x", "a/" * 1000 + "../" * 1001 + "x", "/." * 2000):
        assert not Bounds(tmp_path).holds(path)
        with pytest.raises(InputError, match=r"outside of|no file can have such a name"):
            Bounds(tmp_path).check(path)


def test_folders_are_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million images cost a look at each, not a walk along its path."""
    write_people(tmp_path / "set", 3, 50, size=8)
    bounds, counted = Bounds(tmp_path / "set"), []
    real = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda *words, **more: counted.append(words) or real(*words, **more))
    for file in (tmp_path / "set").rglob("*.jpg"):
        bounds.check(file)
    assert len(counted) == 3
    counted.clear()
    assert len(open_reader(tmp_path / "set")) == 150
    assert len(counted) <= 4
