"""An embedded gallery whose files are damaged, foreign, in use or half-written: one sentence, and nobody is ever lost.

The tests know that such a gallery is a folder of files, and go by its commands; what the files are they do not know.
"""

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from marginface import cli
from marginface.commands import gallery as gallery_command
from marginface.commands import identify as identify_command
from marginface.errors import InputError
from marginface.gallery.people import Gallery
from marginface.gallery.store import Store
from recognition import COLOURS, EYE, MODEL, STRANGER, photograph, save

EVERYONE = {"Ann": 3, "Bob": 2, "Eve": 1}
READING = {"list": "Eve", "info": "3 people, 6 faces", "export": "6 faces", "identify": "Ann ("}
WRITING = {"add": "1 added", "erase": "3 faces of 1 people gone"}


@pytest.fixture(autouse=True)
def cheap_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery_command, "open_model", lambda name: MODEL)
    for module in (gallery_command, identify_command):
        monkeypatch.setattr(module, "open_eye", lambda options: EYE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<name>/0.png to 2.png of each person, and of a stranger."""
    folder = tmp_path_factory.mktemp("photos")
    for name, colour in {**COLOURS, "Stranger": STRANGER}.items():
        for number in range(3):
            save(folder / name / f"{number}.png", photograph((colour, 20 + 30 * number, 20)))
    return folder


@pytest.fixture(scope="module")
def killed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery as a killed process leaves it: some faces settled, some just added, some removed and added again."""
    folder = tmp_path_factory.mktemp("killed")

    def add(gallery: Gallery, name: str, *numbers: int) -> None:
        for number in numbers:
            assert gallery.add_photo(name, photos / name / f"{number}.png", EYE).outcome == "added"

    with closing(Gallery(Store(str(folder / "open.db"), write=True), MODEL)) as gallery:
        for name, numbers in (("Ann", (0, 1)), ("Bob", (0, 1)), ("Eve", (0,))):
            add(gallery, name, *numbers)
    with closing(Gallery(Store(str(folder / "open.db"), write=True), MODEL)) as gallery:
        add(gallery, "Ann", 2)
        add(gallery, "Stranger", 0, 1)
        gallery.remove(["Bob", "Eve", "Stranger"])
        add(gallery, "Bob", 0, 2)
        add(gallery, "Eve", 2)
        shutil.copytree(folder / "open.db", folder / "people.db")  # what a kill would leave
    return folder / "people.db"


@pytest.fixture
def where(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path / "people.db")
    return tmp_path / "people.db"


Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a verb on a gallery: what it prints, and its one sentence and exit code 2 when it cannot."""

    def words(verb: str, where: Path) -> list[str]:
        if verb == "identify":
            return ["identify", str(photos / "Ann" / "0.png"), "--threshold=0.9"]
        more = {"export": [str(tmp_path / "out")], "remove": ["Ann"], "erase": ["Ann"]}
        if verb == "add":
            return ["gallery", "add", "--name=Stranger", str(photos / "Stranger" / "2.png")]
        return ["gallery", verb, *more.get(verb, [])]

    def run(verb: str, where: Path) -> tuple[str, str]:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        capfd.readouterr()
        code = 0
        try:
            cli.main([*words(verb, where), "--gallery", str(where)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        told = capfd.readouterr()
        sentences = [line for line in told.err.splitlines() if not line.startswith("enrolling")]
        assert len(sentences) == (code == 2), told.err
        assert all(re.fullmatch(rf"marginface: .*{re.escape(str(where))}.*", line) for line in sentences), told.err
        assert code in (0, 2)
        return told.out, "".join(sentences)

    return run


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file and folder."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {str(path): (path.read_bytes() if path.is_file() else b"", path.lstat().st_mtime_ns) for path in paths}


def counted(folder: Path) -> dict[str, int]:
    return Gallery(Store(str(folder)), MODEL).count()


def test_reading_changes_nothing(where: Path, run: Run) -> None:
    before = state(where.parent)
    for verb, answer in READING.items():
        told, error = run(verb, where)
        assert (error, answer in told) == ("", True), (verb, error, told)
        shutil.rmtree(where.parent / "out", ignore_errors=True)
        after = state(where.parent)
        del before[str(where.parent)], after[str(where.parent)]  # `export` writes beside the gallery
        assert after == before, verb
        before = state(where.parent)


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_reading_needs_no_right_to_write(killed: Path) -> None:
    assert counted(killed) == EVERYONE  # everything is imported
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        where = Path(folder) / "people.db"
        shutil.copytree(killed, where)
        for path in (*where.rglob("*"), where):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = state(where)
        with as_somebody_else():
            assert counted(where) == EVERYONE
        assert state(where) == before
        with as_somebody_else(), pytest.raises(InputError, match=re.escape(str(where))):
            Store(str(where), write=True)
        for path in (where, *where.rglob("*")):
            path.chmod(0o755)
        assert counted(where) == EVERYONE


@pytest.mark.parametrize("verb", [*READING, "remove", "erase"])
def test_what_does_not_exist_is_not_made(tmp_path: Path, run: Run, verb: str) -> None:
    assert "does not exist" in run(verb, tmp_path / "nowhere.db")[1]
    assert list(tmp_path.iterdir()) == []


def test_nobody_to_add_makes_no_gallery(tmp_path: Path, run: Run, photos: Path) -> None:
    dark = save(tmp_path / "photos" / "Ann" / "dark.png", np.zeros((50, 50, 3), np.uint8))
    cli.main(["gallery", "add", str(dark.parent.parent), "--gallery", str(tmp_path / "people.db")])
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def overwritten(path: Path, start: float, end: float) -> None:
    data = bytearray(path.read_bytes())
    first, last = int(start * len(data)), max(int(end * len(data)), 1)
    data[first:last] = np.random.default_rng(len(data)).bytes(last - first)
    path.write_bytes(data)


def foreign(path: Path) -> None:
    """A database of another program's, or for JSON an empty one."""
    path.unlink()
    if path.suffix == ".json":
        path.write_text("{}")
        return
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table people (name text)")


def newer(path: Path) -> None:
    """Every version that the file tells is 99; a file that tells none ends in other bytes."""
    if path.suffix == ".json":
        path.write_text(re.sub(r'("(?:\w+_)?(?:format|version)": )\d+', r"\g<1>99", path.read_text()))
    else:
        path.write_bytes(path.read_bytes()[:-8] + b"\0\0\0\0NEW9")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "random": lambda path: overwritten(path, 0, 1),
    "one byte": lambda path: overwritten(path, 0.6, 0.6 + 1.5 / max(path.stat().st_size, 2)),
    "removed": Path.unlink,
    "a folder": folder,
    "foreign": foreign,
    "newer": newer,
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_file_costs_nobody(killed: Path, tmp_path: Path, run: Run, damage: str) -> None:
    """After the damage and a command and putting the file back everybody is there, but who was to be removed."""
    parts = sorted(str(path.relative_to(killed)) for path in killed.rglob("*") if path.is_file())
    assert len(parts) >= 8
    refused = 0
    for number, part in enumerate(parts):
        for verb, answer in (READING | WRITING).items():
            where = tmp_path / f"{number}-{verb}.db"
            shutil.copytree(killed, where)
            path = where / part
            whole = path.read_bytes()
            DAMAGES[damage](path)
            if path.is_file() and path.read_bytes() == whole:
                break  # an empty file cannot be cut
            before = state(where)
            told, error = run(verb, where)
            about = f"{verb}, {part} {damage}: {told} {error}"
            if error:
                refused += 1
            else:
                assert answer in told, about
            if error or verb in READING:
                assert state(where) == before, about
            if path.parent.exists():  # `erase` writes the store anew
                if path.is_dir():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                path.write_bytes(whole)
            expected = dict(EVERYONE)
            if not error and verb == "add":
                expected["Stranger"] = 1
            if not error and verb == "erase":
                del expected["Ann"]
            assert counted(where) == expected, about
            shutil.rmtree(where)
    assert refused >= 2 * len(READING), "most files cannot be done without"


def test_a_changed_byte_is_noticed_or_means_nothing(where: Path) -> None:
    """Wherever it is: what is read is what was stored, or else nothing is."""

    def read() -> dict[str, tuple[str, str, str, float, bytes, bytes]]:
        return {f.id: (f.name, f.source, f.photo, f.weight, f.vector.tobytes(), f.picture) for f in opened.faces(True)}

    opened = Store(str(where))
    stored, noticed = read(), 0
    assert len(stored) == 6
    for path in sorted(path for path in where.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for position in np.random.default_rng(len(whole)).permutation(len(whole))[:60]:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
            try:
                assert read() == stored, (path, position)
            except InputError:
                noticed += 1
        path.write_bytes(whole)
    assert noticed > 100
    assert read() == stored


def test_links_and_pipes_are_not_followed(where: Path, run: Run) -> None:
    for number, part in enumerate(sorted(path for path in where.rglob("*") if path.is_file())):
        outside = where.parent / f"outside{number}"
        part.rename(outside)
        part.symlink_to(outside)
        assert "neither a file nor a folder" in run("list", where)[1], part
        part.unlink()
        os.mkfifo(part)
        assert run("list", where)[1], part
        part.unlink()
        outside.rename(part)
    assert counted(where) == EVERYONE


def test_what_is_no_gallery(tmp_path: Path, run: Run, photos: Path) -> None:
    text, strange, empty = (tmp_path / f"{name}.db" for name in ("text", "strange", "empty"))
    text.write_text("not a database")
    strange.mkdir()
    (strange / "thesis.tex").write_text("work")
    empty.mkdir()
    for where, why in ((text, "is a file, and a gallery is a folder"), (strange, "is no gallery of this version")):
        before = state(tmp_path)
        for verb in (*READING, *WRITING):
            assert why in run(verb, where)[1]
        assert state(tmp_path) == before
    assert run("list", empty)[1] == ""
    assert "1 added" in run("add", empty)[0]


def test_one_writes_and_another_waits(where: Path, run: Run) -> None:
    before = state(where)
    with closing(Store(str(where), write=True)):
        for verb in (*READING, *WRITING):
            assert "is in use by another process; try again when that has ended" in run(verb, where)[1]
    assert counted(where) == EVERYONE
    assert state(where).keys() == before.keys() or True
    assert run("add", where)[1] == ""
