"""Image lists as people have them: what each says is read, or refused with its line and the form expected."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marginface.errors import InputError
from marginface.readers import open_reader
from marginface.readers.verification import open_verification

PEOPLE = {"Ann Lee": 30, "O, Brien": 5, "bob": 12}
IMAGES = [(f"{person}/{number} x.png", person) for number in (1, 2) for person in PEOPLE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists")
    for name, _ in IMAGES:
        (path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "faces" / name).write_bytes(name.encode())
    return path


def quoted(delimiter: str, *order: str, header: str = "", label: Callable[[str], object] = str) -> str:
    """Rows of CSV whose columns are `order`."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerows([header.split()] if header else [])
    for index, (path, person) in enumerate(IMAGES):
        cells = {"path": path, "label": label(person), "index": index, "split": "train", "age": 30.5}
        writer.writerow([cells[name] for name in order])
    return out.getvalue()


def number(person: str) -> int:
    return PEOPLE[person]


def plain(line: str) -> str:
    return "".join(line.format(p=path, n=number(person), who=person) + "\n" for path, person in IMAGES)


NAMES = {
    "CSV": quoted(",", "path", "label"),
    "CSV with a header": quoted(",", "path", "label", header="path label"),
    "CSV, label first": quoted(",", "label", "path"),
    "CSV, label first, header": quoted(",", "label", "path", header="identity image"),
    "CSV of pandas": quoted(",", "index", "path", "label", header="Unnamed:0 filename name"),
    "CSV with other columns": quoted(",", "split", "path", "age", "label", header="split img_path age person"),
    "CSV with an unknown header": quoted(",", "path", "label", header="foto wer"),
    "semicolons": quoted(";", "path", "label", header="File Label"),
    "TSV": quoted("\t", "path", "label"),
    "TSV with a header": quoted("\t", "index", "path", "label", header="id path name"),
    "TSV, label first": quoted("\t", "label", "path"),
    "CSV without quotes": plain("{p},{who}"),
    "blanks, quotes": plain('"{p}" {who}'),
    "comments": "# faces of 2024\n#\n" + quoted(",", "path", "label"),
    "comments after the header": "path,label\n# first\n" + quoted(",", "path", "label") + "# the end\n",
    "folders alone": plain("{p}"),
    "folders alone, header": "path\n" + plain("{p}"),
    "Windows": plain("{p}\t{who}").replace("/", "\\").replace("\n", "\r\n"),
    "Windows CSV": quoted(",", "path", "label", header="path label").replace("/", "\\").replace("\n", "\r\n"),
    "this folder": plain("./{p}\t{who}"),
    "below the list": plain("faces/{p}\t{who}"),
}
NUMBERS = {
    "CSV": quoted(",", "path", "label", label=number),
    "CSV with a header": quoted(",", "path", "label", header="path label", label=number),
    "CSV without quotes": plain("{p},{n}"),
    "CSV with blanks": plain("{p} , {n}"),
    "semicolons": plain("{p};{n}"),
    "CSV, label first": quoted(",", "label", "path", label=number),
    "TSV": plain("{p}\t{n}"),
    "TSV, label first": plain("{n}\t{p}"),
    "blanks": plain("{p} {n}"),
    "blanks, header": "path label\n" + plain("{p} {n}"),
    "quotes": plain("'{p}' {n}"),
    "im2rec": plain("7\t{n}.000000\t{p}"),
    "flag path label": plain("1\t{p}\t{n}"),
    "Windows": plain("{p} {n}").replace("/", "\\").replace("\n", "\r\n"),
    "aligned by blanks": plain("{p}      {n}   "),
    "points": plain("{p},{n}," + ",".join(map(str, range(30, 40)))),
    "points, header": "path,label,a,b,c,d,e,f,g,h,i,j\n" + plain('"{p}",{n},' + ",".join(map(str, range(30, 40)))),
}


def check(folder: Path, text: bytes, numbered: bool) -> None:
    (folder / "list.txt").write_bytes(text)
    reader = open_reader(folder / "list.txt")
    records = reader.read(range(len(reader)))
    assert [record.image.decode() for record in records if isinstance(record.image, bytes)] == [n for n, _ in IMAGES]
    names = list(getattr(reader, "class_names", []))
    written = [str(PEOPLE[person]) if numbered else person for _, person in IMAGES]
    assert [names[record.label] for record in records] == written
    assert names == (["5", "12", "30"] if numbered else sorted(PEOPLE))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("form", "numbered"), [*((form, False) for form in NAMES), *((form, True) for form in NUMBERS)]
)
def test_lists_as_people_have_them(folder: Path, form: str, numbered: bool, mark: bytes) -> None:
    text = (NUMBERS if numbered else NAMES)[form]
    check(folder, mark + text.encode(), numbered)
    check(folder, mark + text.replace("\n", " \n\n").encode(), numbered)


@pytest.mark.parametrize(
    "line",
    [
        "{p}",
        "{p},{who}",
        "{p}\t{who}",
        "{p};{n}",
        "{p} {n}",
        "{who},{p}",
        "{who}\t{p}",
        "{p}," + ",".join("1234567890"),
    ],
)
@pytest.mark.parametrize("header", [False, True])
def test_a_name_that_begins_with_the_mark_of_a_comment_is_no_comment(tmp_path: Path, line: str, header: bool) -> None:
    images = [("ann/1.png", "ann", 3), ("#1/1.png", "#1", 5), ("#1/#2.png", "#1", 5)]
    for path, _, _ in images:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    rows = [line.format(p=path, who=who, n=number) for path, who, number in images]
    title = [re.sub(r"1,2.*", "a,b,c,d,e,f,g,h,i,j", line.format(p="path", who="label", n="label"))] if header else []
    text = "\n".join([*title, "# made by hand", rows[0], f"#{rows[0]}", f"# {rows[0]}", "#5", *rows[1:], "#"])
    (tmp_path / "list.txt").write_text(text)
    records = open_reader(tmp_path / "list.txt").read(range(3))
    assert [record.key for record in records] == [path for path, _, _ in images]
    assert [record.label for record in records] in ([0, 1, 1], [1, 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,label\nbob/1 x.png,bob\nAnn Lee/1 x.png\n",
            r"line 3 is no line .* it has 1 cells; expected",
        ),
        ("bob/1 x.png 1\nAnn Lee/1 x.png 1 2\n", r"line 2 is no line .*; expected an image and whose it is, such as"),
        ("C:\\data\\bob\\1 x.png,1\nC:\\bob\\2 x.png,2\n", r"first image, 'C:/data/bob/1 x.png'.* relative"),
        ("/data/bob/1 x.png,1\n/data/Ann Lee/1 x.png,2\n", r"first image, '/data/bob/1 x.png'.* relative to it"),
    ],
)
def test_lists_that_cannot_be_read_say_what_is_expected(folder: Path, text: str, message: str) -> None:
    (folder / "list.txt").write_text(text)
    with pytest.raises(InputError, match=rf"list.txt: .*{message}"):
        open_reader(folder / "list.txt")


letters = st.text(  # of names
    st.characters(codec="utf-8", categories=["L", "N", "P", "S"], exclude_characters="/\\"), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people=st.lists(letters.filter(lambda name: name.strip(".")), min_size=2, max_size=4, unique_by=str.casefold),
    delimiter=st.sampled_from(",;\t"),
    header=st.booleans(),
)
@example(people=["a,b", "c d"], delimiter=",", header=False)
def test_any_names_survive_csv(tmp_path_factory, people: list[str], delimiter: str, header: bool) -> None:
    folder = tmp_path_factory.mktemp("csv")
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["path", "label"]] if header else [])
    for number, person in enumerate(people):
        (folder / f"{number}.png").write_bytes(person.encode())
        writer.writerow([f"{number}.png", person])
    (folder / "list.csv").write_text(out.getvalue(), newline="")
    reader = open_reader(folder / "list.csv")
    names = list(getattr(reader, "class_names", []))
    for record in reader.read(range(len(people))):
        assert isinstance(record.image, bytes)
        expected = record.image.decode()
        assert names[record.label] == expected


PAIRS = {
    "flag first": '{f} "{a}" "{b}"',
    "flag first, blanks": "{f} {a} {b}",
    "number and flag first": "{n} {f} {a} {b}",
    "flag last": "{a} {b} {f}",
    "tabs": "{a}\t{b}\t{f}",
    "CSV": '"{a}","{b}",{f}',
    "CSV without quotes": "{a},{b},{f}",
    "semicolons, words": "{a};{b};{w}",
    "CSV with a header": 'i,left,right,is_same\n{n},"{a}","{b}",{w}',
    "TSV with a header": "A\tB\tis_same\n{a}\t{b}\t{f}",
    "an unknown header": 'one two same\n{f} "{a}" "{b}"',
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("form", PAIRS)
def test_pair_lists_as_people_have_them(folder: Path, form: str, windows: bool, mark: bytes) -> None:
    header, _, line = PAIRS[form].rpartition("\n")
    lines = [header] * bool(header)
    expected = []
    for n, (first, second) in enumerate(zip(IMAGES, [*IMAGES[3:], *IMAGES[:3]], strict=True)):
        expected += [(first[0], n % 2 == 0), (second[0], n % 2 == 0)]
        lines.append(line.format(a=first[0], b=second[0], f=int(n % 2 == 0), w=n % 2 == 0, n=n))
    text = "\n".join(lines)
    text = text.replace("/", "\\").replace("\n", "\r\n") if windows else text.replace("\n", " \n\n")
    (folder / "pairs.txt").write_bytes(mark + text.encode())
    found = open_verification(folder / "pairs.txt")
    seen = [(record.image.decode(), bool(found.issame[record.label])) for record in found.images]  # type: ignore[union-attr]
    assert seen == expected
    (folder / "pairs.txt").write_bytes(mark + text.encode() + b"\n\nbob/1 x.png bob/2 x.png 7")
    number = text.count("\n") + 3
    with pytest.raises(InputError, match=rf"pairs.txt: line {number} is not two images and 0 or 1"):
        open_verification(folder / "pairs.txt")
