"""One walk for all folders of images: what is hidden, what is an image, and what is counted as neither."""

import io
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface import cli
from marginface.errors import InputError
from marginface.evaluate import open_benchmark
from marginface.gallery.photos import photos_in
from marginface.readers import open_reader
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import (
    IMAGE_SUFFIXES,
    OF_NOBODY,
    describe_left_out,
    find_files,
    list_kinds,
    walk_images,
)

LEFT_BY_OTHERS = (
    *("p01/.ipynb_checkpoints/p01_0001.jpg", "p01/._p01_0001.jpg", "__MACOSX/p01/p01_0001.jpg", ".DS_Store"),
    *("p02/@eaDir/p02_0001.jpg", ".ipynb_checkpoints/p01_0001.jpg", "p03/.DS_Store", "._p01"),
)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Four people of three photographs, among what notebooks, macOS and network storage leave behind."""
    random = np.random.default_rng(0)
    for person in range(4):
        for number in range(1, 4):
            path = tmp_path / "set" / f"p{person:02d}" / f"p{person:02d}_{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), random.integers(0, 256, (112, 112, 3), np.uint8))
    for name in LEFT_BY_OTHERS:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"\xff\xd8\xff not of the set")
    return tmp_path / "set"


def test_hidden_files_count_nowhere(people: Path) -> None:
    assert len(open_reader(people)) == 12
    assert list(open_reader(people).class_names) == ["p00", "p01", "p02", "p03"]
    assert len(open_benchmark(f"closedset:{people}").images) == 12
    assert len(open_benchmark(f"pairs:{people}").images) <= 12
    assert len(list(photos_in(people))) == 12
    assert not open_reader(people).left_out


def test_hidden_files_are_no_part_of_sets_in_files(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", np.zeros((4, 3, 8, 8), np.uint8))
    (tmp_path / "._set.npy").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "set.npy").touch()
    assert find_files(tmp_path, "*.npy", "*/*.npy") == [tmp_path / "set.npy"]


def test_images_are_told_by_their_suffix_or_their_beginning(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    (tmp_path / "a").mkdir()
    kinds = {kind: bytes(cv2.imencode(kind, picture)[1]) for kind in (".jpg", ".png", ".bmp", ".webp", ".ppm", ".tiff")}
    for suffix in IMAGE_SUFFIXES:
        (tmp_path / "a" / f"by_suffix{suffix.upper()}").write_bytes(b"damaged, which the decoder says")
    for kind, data in kinds.items():
        (tmp_path / "a" / f"without_suffix_{kind[1:]}").write_bytes(data)
        (tmp_path / "a" / f"misnamed_{kind[1:]}.gif").write_bytes(data)
    for name in ("notes.txt", "more.txt", "README", "truth.json", "film.mp4", "empty"):
        (tmp_path / "a" / name).write_bytes(b"words" * (name != "empty"))
    left_out = Counter[str]()
    found = {Path(name).name for name in walk_images(tmp_path, Bounds(tmp_path), left_out)}
    assert found == {f"by_suffix{suffix.upper()}" for suffix in IMAGE_SUFFIXES} | {
        f"{start}_{kind[1:]}{end}"
        for kind in kinds
        if kind != ".tiff"
        for start, end in (("without_suffix", ""), ("misnamed", ".gif"))
    }
    assert left_out == {".txt": 2, "": 3, ".gif": 1, ".json": 1, ".mp4": 1}  # README, empty and the TIFF have none
    assert list_kinds(left_out) == "3 without a suffix, 2 .txt, 1 .gif, 1 .json, 1 .mp4"


def test_what_is_not_taken_is_counted_once(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("p01/a.tif", "p01/b.tif", "p02/notes.txt", "cover.jpg"):
        (people / name).write_bytes(b"II*\0")
    sentence = describe_left_out(people, open_reader(people))
    assert sentence.startswith(f"{people}: 4 of 16 files are not taken (2 .tif, 1 .txt, 1 in no folder of a person);")
    for words in (["inspect", str(people)], ["convert", str(people), f"{people}.out"]):
        cli.main(words)
        told = capsys.readouterr()
        assert told.err.count(sentence) == 1
    assert list_kinds({f".{number:030d}": 1 for number in range(99)}).count(",") == 8


def test_archives_and_shards_take_the_same_files(people: Path, tmp_path: Path) -> None:
    (people / "p01" / "George_W._Bush_0001").write_bytes((people / "p01" / "p01_0001.jpg").read_bytes())
    for name in ("p01/a.tif", "p02/notes.txt", "p02/README", "cover.jpg"):
        (people / name).write_bytes(b"II*\0")
    folder = open_reader(people)
    assert len(folder) == 13
    for packed in (
        shutil.make_archive(str(tmp_path / "a"), kind, people.parent, people.name) for kind in ("zip", "tar")
    ):
        archive = open_reader(packed)
        assert [record.key for record in archive.read(range(13))] == [record.key for record in folder.read(range(13))]
        assert archive.left_out == folder.left_out == {".tif": 1, ".txt": 1, "": 1, OF_NOBODY: 1}
    with tarfile.open(tmp_path / "set.tar", "w") as shard:
        for number, suffix in enumerate((".jpg", ".jpg", ".tif")):
            shard.add(people / "p01" / "p01_0001.jpg", f"{number}{suffix}")
            cls = tarfile.TarInfo(f"{number}.cls")
            cls.size = 1
            shard.addfile(cls, io.BytesIO(b"%d" % number))
    assert describe_left_out("set.tar", open_reader(tmp_path / "set.tar")).startswith("set.tar: 1 of 3 files are not")


def test_links_to_folders_are_followed_everywhere(people: Path) -> None:
    (people / "p03").rename(people.parent / "p03")
    (people / "p03").symlink_to(people.parent / "p03", target_is_directory=True)
    for allowed in (open_reader(people, True).labels, open_benchmark(f"closedset:{people}", False, True).images):
        assert len(allowed) == 12
    assert len(list(photos_in(people, True))) == 12
    for refused in (open_reader, photos_in, lambda path: open_benchmark(f"closedset:{path}")):
        with pytest.raises(InputError, match="--allow-outside"):
            list(refused(people))


def test_train_and_align_say_it_too(people: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    (people / "p01" / "a.tif").write_bytes(b"II*\0")
    monkeypatch.chdir(people.parent)
    points = [[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]]
    monkeypatch.setattr("marginface.commands.align.open_detector", lambda spec: None)
    monkeypatch.setattr("marginface.commands.align.main_face", lambda detector: lambda image: np.array(points, float))
    cli.main(["align", str(people), "aligned", "--detector", "auto"])
    assert capsys.readouterr().err.count("1 of 13 files are not taken (1 .tif)") == 1
    words = ["--train.epochs", "0.1", "--data.batch_size", "8", "--data.val", "[]", "--model.options", '{"width": 4}']
    cli.main(["train", "--config", "quickstart", "--data.train", str(people), *words])
    told = capsys.readouterr()
    assert (told.out + told.err).count("1 of 13 files are not taken (1 .tif)") == 1
