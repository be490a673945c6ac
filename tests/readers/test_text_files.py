"""Every text file that is read, as editors and spreadsheets save it: the same is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import ijb_set
from marginface.align import read_names
from marginface.convert import Selection, select
from marginface.errors import InputError
from marginface.evaluate import open_benchmark
from marginface.evaluate.attributes import Attributes
from marginface.evaluate.lfw import read_points
from marginface.protocols.ijb_meta import read_ijb_meta
from marginface.protocols.pairs import read_pairs
from marginface.readers import open_reader
from marginface.readers.recordio_format import frame, pack
from marginface.readers.verification import open_verification

VARIATIONS: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "no line end": lambda text: text.rstrip("\n").encode(),
    "blank lines": lambda text: text.replace("\n", "\n\n").encode() + b"\n\n",
    "blanks at ends": lambda text: text.replace("\n", " \t\n").encode(),
    "all of them": lambda text: b"\xef\xbb\xbf" + text.replace("\n", " \r\n\r\n").encode(),
}
Case = tuple[Path, Callable[[], Any]]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def people(folder: Path) -> Path:
    for person in range(4):
        for number in range(1, 7):
            path = folder / f"p{person}" / f"p{person}_{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((8, 8, 3), 10 * person + number, np.uint8))
    return folder


def images(reader: Any) -> list[tuple[bytes, int]]:
    return [(record.image, record.label) for record in reader.read(range(len(reader)))]


def text(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def pairs(folder: Path) -> Case:
    file = text(people(folder) / "pairs.txt", "2\t1", "p0\t1\t2", "p0\t1\tp1\t3", "p2\t2\t3", "p2\t1\tp3\t2")
    return file, lambda: [(found := read_pairs(file, folder)).keys, found.first.tolist(), found.second.tolist()]


def landmarks(folder: Path) -> Case:
    file = text(folder / "lfw_landmark.txt", *(f"a/a_{n}.jpg\t" + "\t".join(map(str, range(10))) for n in range(3)))
    return file, lambda: {key: points.tolist() for key, points in read_points(file).items()}


def labels(folder: Path) -> Case:
    file = text(people(folder) / "list.txt", *(f"p{n % 4}/p{n % 4}_0001.png {n % 4}" for n in range(8)))
    return file, lambda: images(open_reader(file))


def index(folder: Path) -> Case:
    file = text(people(folder) / "index.txt", ",".join(map(str, range(1, 20))))
    return file, lambda: images(open_reader(file))


def keys(folder: Path) -> Case:
    file = text(people(folder).parent / "keys.txt", "p0/p0_0001.png", "p1/p1_0002.png", "p1/p1_0003.png")
    return file, lambda: select(open_reader(folder), Selection(subset=str(file)))[0].tolist()


def names(folder: Path) -> Case:
    file = text(folder / "names.txt", "Ann_Lee\t3", "Bob")
    return file, lambda: sorted(read_names(file))


def stored_pairs(folder: Path) -> Case:
    file = text(people(folder) / "a.txt", "1 p0/p0_0001.png p0/p0_0002.png", "0 p0/p0_0001.png p1/p1_0002.png")
    return file, lambda: read_stored(file)


def csv_pairs(folder: Path) -> Case:
    rows = "0,p0/p0_0001.png,p0/p0_0002.png,1", "1,p0/p0_0001.png,p1/p1_0002.png,0"
    file = text(people(folder) / "a.csv", "index,A,B,is_same", *rows)
    return file, lambda: read_stored(file)


def magface_pairs(folder: Path) -> Case:
    file = text(people(folder) / "x_pair.list", "0 1 1", "2 3 0")
    text(folder / "x_img.list", "p0/p0_0001.png", "p0/p0_0002.png", "p0/p0_0001.png", "p1/p1_0002.png")
    return file, lambda: read_stored(file)


def read_stored(path: Path) -> Any:
    found = open_verification(path)
    return found.issame.tolist(), [record.image for record in found.images]


def issame(folder: Path) -> Case:
    np.save(folder / "a.npy", np.zeros((4, 3, 8, 8), np.uint8))
    return text(folder / "issame.txt", "1", "0"), lambda: open_verification(folder).issame.tolist()


def record_files(name: str) -> Callable[[Path], Case]:
    def case(folder: Path) -> Case:
        chunks = [frame(pack([key % 2], key, b"image %d" % key)) for key in range(1, 5)]
        (folder / "train.rec").write_bytes(b"".join(chunks))
        offsets = np.cumsum([0, *map(len, chunks)])
        text(folder / "train.idx", *(f"{key}\t{offset}" for key, offset in zip(range(1, 5), offsets, strict=False)))
        text(folder / "property", "2,112,112")
        return folder / name, lambda: images(open_reader(folder))

    return case


def attributes(folder: Path) -> Case:
    file = text(folder / "groups.csv", "key,group", "a/1.jpg,x", "b/1.jpg,y")
    return file, lambda: Attributes(file).values("group", ["a/1.jpg", "b/1.jpg"]).tolist()


def meta(end: str) -> Callable[[Path], Case]:
    def case(folder: Path) -> Case:
        file = ijb_set.write_ijb(folder) / "IJBC" / "meta" / f"ijbc_{end}"
        return file, lambda: {k: v.tolist() for k, v in vars(read_ijb_meta(folder / "IJBC", "IJBC")).items()}

    return case


CASES: dict[str, Callable[[Path], Case]] = {
    **{one.__name__: one for one in (pairs, landmarks, labels, index, keys, names, stored_pairs, csv_pairs)},
    **{one.__name__: one for one in (magface_pairs, issame, attributes)},
    **{name: record_files(name) for name in ("train.idx", "property")},
    **{end: meta(end) for end in ("face_tid_mid.txt", "name_5pts_score.txt", "template_pair_label.txt")},
    **{end: meta(end) for end in ("1N_gallery_G1.csv", "1N_probe_mixed.csv")},
}


@pytest.mark.parametrize("case", CASES)
def test_text_files_as_editors_save_them(tmp_path: Path, case: str) -> None:
    (tmp_path / "set").mkdir()
    file, read = CASES[case](tmp_path / "set")
    plain, expected = file.read_text(), read()
    for name, vary in VARIATIONS.items():
        if case == "train.idx" and name not in ("byte order mark", "CRLF", "no line end"):
            continue  # written by programs alone
        file.write_bytes(vary(plain))
        assert read() == expected, name


def test_a_table_of_ijb_without_its_header_loses_no_row(tmp_path: Path) -> None:
    file, read = meta("1N_gallery_G1.csv")(tmp_path)
    expected = read()["gallery1"]
    file.write_text(file.read_text().partition("\n")[2])
    assert read()["gallery1"] == expected


def test_text_in_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("a/1.jpg 1\nb/1.jpg 2\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"list.txt: is UTF-16 text; save it as UTF-8"):
        open_reader(tmp_path / "list.txt")


@pytest.mark.parametrize("name", ["p_0001.png", "p_1.JPG", "p_01", "0001.webp", "1.jpeg", "p-1.pnm"])
def test_pictures_of_a_pair_list_by_the_names_that_people_give(tmp_path: Path, name: str) -> None:
    for person in "pq":
        (tmp_path / person).mkdir()
        for number in "123":
            (tmp_path / person / name.replace("p", person, name[0] == "p").replace("1", number, 1)).touch()
    file = text(tmp_path / "pairs.txt", "2 1", "p 1 2", "p 1 q 3", "q 2 3", "q 1 p 2")
    found = read_pairs(file, tmp_path)
    assert found.keys[found.first[0]] == f"p/{name}"
    (tmp_path / "p" / "p_0001.bmp").touch()
    (tmp_path / "p" / "p_0001.bmp.txt").touch()
    assert read_pairs(file, tmp_path).keys[found.first[0]] == "p/p_0001.bmp"


def test_a_pair_list_names_what_it_looked_for(tmp_path: Path) -> None:
    _, read = pairs(tmp_path)
    (tmp_path / "p3" / "p3_0002.png").unlink()
    with pytest.raises(InputError, match=r"first: p3 2, looked for as p3/p3_0002.jpg, p3_2.jpg, 0002.jpg and 2.jpg"):
        read()


@pytest.mark.parametrize("name", ["Lee, Ann", "with blank", "a,b=c", "x,enrol=3,y", "café, ñ"])
def test_a_folder_of_any_name_in_every_benchmark_word(tmp_path: Path, name: str) -> None:
    folder = people(tmp_path / name / "faces")
    listed = text(tmp_path / name / "my, pairs.txt", "2 1", "p0 1 2", "p0 1 p1 3", "p2 2 3", "p2 1 p3 2")
    points = " ".join(map(str, np.arange(10) * 7.0))
    text(folder / "lfw_landmark.txt", *(f"p{p}/p{p}_{n:04d}.png {points}" for p in range(4) for n in range(1, 7)))
    ijb_set.write_ijb(tmp_path / name)
    lines = "1 p0/p0_0001.png p0/p0_0002.png", "0 p0/p0_0001.png p1/p1_0002.png"
    stored = text(folder / "a, b.txt", *lines * 5)
    for spec, count in {
        f"pairs:{folder}": 24,
        str(folder): 24,
        f"pairs:{folder},pairs={listed}": 7,
        f"{folder},pairs={listed}": 7,
        f"closedset:{folder},enrol=2": 24,
        f"lfw:{folder},pairs={listed},align=arcface": 7,
        f"ijbc:{tmp_path / name},pooling=N1D1F1": 56,
        str(stored): 20,
    }.items():
        assert len(open_benchmark(spec).images) == count, spec
    with pytest.raises(InputError, match="'colour' is no option"):
        open_benchmark(f"closedset:{folder},colour=3")
    with pytest.raises(InputError, match="does not exist"):
        open_benchmark(f"closedset:{folder}s,enrol=3")


def test_memory_files_without_their_description_are_named(tmp_path: Path) -> None:
    (tmp_path / "lfw" / "memfile").mkdir(parents=True)
    (tmp_path / "lfw" / "memfile" / "mem_file.dat").write_bytes(bytes(64))
    for path in (tmp_path / "lfw", tmp_path / "lfw" / "memfile", tmp_path / "lfw" / "memfile" / "mem_file.dat"):
        with pytest.raises(InputError, match=r"mem_file.dat.conf: missing; it says how many images"):
            open_benchmark(str(path))
