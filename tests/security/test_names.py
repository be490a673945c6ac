"""Names of records become names of files: none leads out of the folder, hangs another line on, or ends the work."""

import io
import json
import os
import tarfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marginface.align import align_faces
from marginface.convert import convert
from marginface.files import replace_file
from marginface.inspect import inspect
from marginface.readers import open_reader
from marginface.readers.base import Record

PICTURE = bytes(cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))[1])
HOSTILE = [
    *("../../escape", "..", ".", "", "/", "//", "../" * 50 + "etc/passwd", "/etc/passwd", "a/../../../escape.jpg"),
    *(
        "..\\..\\escape.jpg",
        "C:\\escape.jpg",
        "\\\\server\\escape",
        "~/escape",
        "$HOME/escape",
        "-rf",
        "a" * 251 + ".jpg",
    ),
    *("ä" * 200, "x" * 5000, "a/" * 3000 + "b", "nul\0nul.jpg", "\0", "\n1\t/etc/passwd\t0", "tab\ttab", "\x1b[2J.jpg"),
    *(
        "\ud800.jpg",
        "\udcff.jpg",
        "\U0001f600" * 100,
        ".hidden",
        ".convert.json",
        "convert.json",
        "__MACOSX/x.jpg",
        "con",
    ),
    *(
        "a.jpg/b.jpg",
        "a.jpg",
        "x.png/",
        ".partial",
        "CON.jpg",
        "a:b.jpg",
        "a?.jpg",
        "\u202egpj.exe",
        " ",
        "...",
        ". ./x",
    ),
]


def write_shard(folder: Path, keys: list[str], identities: Sequence[str] = ("ann", "bob")) -> Path:
    """A shard whose JSON gives the records their keys and the people their names."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "train-0.tar", "w") as archive:
        for number, key in enumerate(keys):
            about = {"key": key, "identity": identities[number % len(identities)], "num_classes": len(identities)}
            parts = {
                "png": PICTURE + bytes([number]),  # no two are equal
                "cls": str(number % len(identities)).encode(),
                "json": json.dumps(about).encode(),
            }
            for suffix, content in parts.items():
                entry = tarfile.TarInfo(f"{number:05d}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return folder


def everything_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sync", lambda: None)  # hundreds of conversions need not wait for the disk


@pytest.mark.parametrize("to", ["folder", "recordio", "webdataset", "parquet"])
def test_no_name_of_a_record_leads_out(tmp_path: Path, to: str) -> None:
    if to == "parquet":
        pytest.importorskip("pyarrow")
    for number, key in enumerate(HOSTILE):
        source = write_shard(tmp_path / "in" / f"{number}", [key, "bob/1.png", "ann/2.png", "bob/2.png"])
        check_conversion(tmp_path, source, tmp_path / "deep" / f"out{number}", to)


@pytest.mark.parametrize("to", ["folder", "recordio", "webdataset", "parquet"])
def test_no_name_of_a_person_leads_out(tmp_path: Path, to: str) -> None:
    if to == "parquet":
        pytest.importorskip("pyarrow")
    for number, name in enumerate(HOSTILE):
        source = write_shard(tmp_path / "in" / f"{number}", [f"{name}/1.png", "2.png"], [name, "zoe"])
        check_conversion(tmp_path, source, tmp_path / "deep" / f"out{number}", to)


def check_conversion(root: Path, source: Path, out: Path, to: str) -> None:
    """Nothing lies anywhere else afterwards, and every image is read again."""
    before = everything_below(root)
    count = convert(str(source), out, to)
    assert everything_below(root) - before == everything_below(out)
    again = open_reader(out)
    images = sorted(bytes(record.image) for record in again.read(range(len(again))))
    assert images == [PICTURE + bytes([number]) for number in range(count)]


def test_no_name_hangs_a_line_on(tmp_path: Path) -> None:
    source = write_shard(tmp_path / "set", ["a\n1\t/etc/passwd\t0", "b\r\n1\t/etc/passwd\t0"])
    convert(str(source), tmp_path / "out", "recordio")
    assert len((tmp_path / "out" / "train.lst").read_text().splitlines()) == 2


class Named:
    """Records of these keys."""

    num_classes = 1

    def __init__(self, keys: list[str]) -> None:
        self._keys, self.labels = keys, np.zeros(len(keys), np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, indices: Sequence[int]) -> list[Record]:
        points = np.array([[20, 20], [40, 20], [30, 30], [22, 45], [38, 45]], np.float32)
        picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        return [Record(picture, 0, self._keys[index], points) for index in indices]


def test_no_aligned_face_leads_out(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    done = align_faces(Named(["good.jpg", *HOSTILE]), out)
    assert everything_below(tmp_path) == everything_below(out)
    assert done.written + done.kept + len(done.refused) >= len(set(HOSTILE))
    for key in ("../../escape", "/etc/passwd", "a/../../../escape.jpg", "x" * 5000, "\0", "\ud800.jpg"):
        assert key in done.refused, key
    assert (out / "0000000" / "good.png").is_file()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(st.text(max_size=400), st.text(max_size=300))
def test_any_name_becomes_a_file(tmp_path_factory: pytest.TempPathFactory, key: str, name: str) -> None:
    root = tmp_path_factory.mktemp("any")
    source = write_shard(root / "set", [key, "plain.png"], [name, "zoe"])
    check_conversion(root, source, root / "out", "folder")
    inspect(str(source))


def test_the_longest_name_that_a_disk_takes(tmp_path: Path) -> None:
    for person in ("a" * 255, "b"):
        (tmp_path / "set" / person).mkdir(parents=True)
        (tmp_path / "set" / person / ("ä" * 125 + "x.jpg")).write_bytes(PICTURE)
    convert(str(tmp_path / "set"), tmp_path / "out", "folder")
    assert {str(path.relative_to(tmp_path / "out")) for path in everything_below(tmp_path / "out")} == {
        str(path.relative_to(tmp_path / "set")) for path in everything_below(tmp_path / "set")
    }
    with replace_file(tmp_path / ("x" * 255)) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / ("x" * 255)).read_text() == "whole"


def test_file_names_that_are_not_utf8_come_through(tmp_path: Path) -> None:
    for person in (b"ann", b"b\xf6b"):
        folder = os.fsencode(tmp_path) + b"/set/" + person
        os.makedirs(folder)  # noqa: PTH103
        with open(folder + b"/\xe4.png", "wb") as file:  # noqa: PTH123
            file.write(PICTURE)
    for to in ("folder", "recordio", "webdataset", *(["parquet"] if find_spec("pyarrow") else [])):
        assert convert(str(tmp_path / "set"), tmp_path / to, to) == 2
        assert [record.image for record in open_reader(tmp_path / to).read([0, 1])] == [PICTURE] * 2
