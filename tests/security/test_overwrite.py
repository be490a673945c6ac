"""No verb and no function replaces what marginface did not write, nor what it did write unless it is told to."""

import ast
import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

import marginface.files
from evaluation_case import refused, save_model, write_stored
from marginface import cli
from marginface.backbones import create_backbone
from marginface.commands import COMMANDS, faces, gallery
from marginface.convert import convert, convert_pairs
from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate import embed_folder
from marginface.export import export, exporting
from marginface.fetch import SOURCES, Source, fetch
from marginface.files import MARKER, check_folder, create_file, replace_folder
from marginface.gallery.people import Gallery
from marginface.protocols.pairs import make_folder_pairs, write_pairs
from marginface.readers import open_reader, sidecar
from marginface.readers.synthetic import SyntheticFaces, write_folder
from marginface.training.run import create_run
from marginface.weights import import_checkpoint, save_imported
from marginface.weights.to_insightface import insightface_state
from people import write_people
from recognition import COLOURS, MODEL, find_squares, photograph

PACKAGE = Path(marginface.files.__file__).parent
THESIS = "\\documentclass{article}"
FILE_OUTPUTS = {  # verb and option -> the words before the file's name
    "align --sheet": ["align", "photographs.txt", "aligned", "--allow-outside", "--sheet"],
    "compare --json": ["compare", "model", "other", "--benchmark", "pairs.bin", "--report=", "--json"],
    "compare --report": ["compare", "model", "other", "--benchmark", "pairs.bin", "--report"],
    "convert destination": ["convert", "people", "--to", "bin"],
    "embed --output": ["embed", "model", "people", "-o"],
    "evaluate --json": ["evaluate", "model", "--benchmark", "pairs.bin", "--report=", "--json"],
    "evaluate --report": ["evaluate", "model", "--benchmark", "pairs.bin", "--report"],
    "evaluate --roc-file": ["evaluate", "model", "--benchmark", "pairs.bin", "--report=", "--roc-file"],
    "export --output": ["export", "model", "--to", "safetensors", "-o"],
    "identify --save": ["identify", "film.avi", "--gallery=g.db", "--threshold=0.9", "--save"],
    "inspect --html": ["inspect", "people", "--html"],
    "inspect --json": ["inspect", "people", "--json"],
    "inspect --write-clean": ["inspect", "people", "--write-clean"],
}
FOLDER_OUTPUTS = {
    "convert destination": ["convert", "people", "--to", "folder"],
    "export --output": ["export", "model", "--to", "openvino", "-o"],
    "fetch destination": ["fetch", "olivetti"],
    "gallery words": ["gallery", "export"],
    "import --output": ["import", "backbone.pth", "-o"],
}
NEVER_REPLACE = ("convert destination", "fetch destination")
MERGING = {"align folder", "identify --save"}  # they add to a folder, file by file
OTHERS = {  # hold folders of ours, each with a name of its own; the store of a gallery; a folder to read
    "evaluate --scratch",
    "train --output",
    "gallery --gallery",
    "identify --gallery",
    "demo --gallery",
    "embed folder",
}
# fmt: off
INPUTS = {
    "action", "all_checkpoints", "backbone", "benchmark", "by", "checkpoint", "csv", "degrade", "detector",
    "embeddings", "evaluation", "expect", "first", "head", "host", "init_from", "int8", "licence",
    "model", "name", "names", "pairs", "part", "password", "path", "people", "reject", "result", "results",
    "resume", "run", "second", "source", "subset", "summary", "which",
}
# fmt: on


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, people, photographs, a video and a checkpoint."""
    folder = tmp_path_factory.mktemp("material")
    save_model(folder / "model")
    save_model(folder / "other", seed=1)
    people = write_people(folder / "people", people=20)
    write_stored(folder / "pairs.bin", people)
    torch.manual_seed(0)
    torch.save(insightface_state(create_backbone("mobilefacenet", num_features=16)), folder / "backbone.pth")
    pictures = ("p00/p00_0001", "p00/p00_0002", "p01/p01_0001")
    lines = [f"people/{picture}.jpg 40 50 70 50 55 70 42 90 68 90" for picture in pictures]
    (folder / "photographs.txt").write_text("\n".join(lines) + "\n")
    picture = cv2.cvtColor(photograph((COLOURS["Ann"], 20, 20)), cv2.COLOR_RGB2BGR)
    (folder / "photos").mkdir()
    cv2.imwrite(str(folder / "photos" / "a.jpg"), picture)
    cv2.imwrite(str(folder / "photos" / "a.png"), picture)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg reads it once per process, and other tests listen
    video = cv2.VideoWriter(str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (240, 120))
    for _ in range(3):
        video.write(picture)
    video.release()
    return folder


class EmptyStore:
    """Of a gallery in which nobody is enrolled."""

    exists, address = False, "g.db"


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs about people and `fetch` without a store, a detector or a network."""

    def get(folder: Path) -> None:
        (folder / "p").mkdir()
        (folder / "p" / "a.png").write_bytes(b"a picture")

    @contextmanager
    def opened(options: object, model: object) -> Iterator[Gallery]:
        yield Gallery(EmptyStore(), MODEL)  # type: ignore[arg-type]

    def write(model: object, folder: Path, interface: object, texts: object) -> None:
        (folder / "model.xml").write_text("a network")

    monkeypatch.setattr("marginface.export.openvino_ir.write", write)  # which takes seconds
    reopen = exporting.reopen
    monkeypatch.setattr(exporting, "reopen", lambda m, path, to, i: m if to == "openvino" else reopen(m, path, to, i))
    monkeypatch.setitem(SOURCES, "olivetti", Source("", "", "", get))
    monkeypatch.setattr(gallery, "open_model", lambda name: MODEL)
    monkeypatch.setattr(gallery, "open_gallery", opened)
    monkeypatch.setattr(faces, "open_model", lambda name: MODEL)
    monkeypatch.setattr(faces, "open_detector", lambda name: find_squares)
    monkeypatch.setattr("marginface.commands.identify.open_gallery", opened)


@pytest.fixture
def place(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: links to the material, and whatever the test puts there."""
    for path in material.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    before = content(material)
    yield tmp_path
    assert content(material) == before


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, links not followed."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


def file_words(output: str, name: str, overwrite: bool = False) -> list[str]:
    name += ".avi" if output == "identify --save" else ""
    words = FILE_OUTPUTS[output]
    if output == "convert destination":
        return [words[0], words[1], name, *words[2:]]
    return [*words, name, *["--overwrite"] * overwrite]


def folder_words(output: str, name: str, overwrite: bool = False) -> list[str]:
    words = FOLDER_OUTPUTS[output]
    return (
        [*words[:2], name, *words[2:]]
        if output == "convert destination"
        else [*words, name, *["--overwrite"] * overwrite]
    )


def test_every_output_of_every_verb_is_tried_here() -> None:
    """An option is an input by its name, or it is in one of the tables above."""
    found = set()
    for verb in COMMANDS:
        parser = ArgumentParser()
        importlib.import_module(f"marginface.commands.{verb}").options(parser)
        for action in parser._actions:
            if getattr(action, "_typehint", action.type) is str and action.dest not in INPUTS:
                found.add(f"{verb} {action.option_strings[-1] if action.option_strings else action.dest}")
    found = {name for name in found if not name.startswith("train --") or name.count(".") == 0}
    assert found == {*FILE_OUTPUTS, *FOLDER_OUTPUTS, *MERGING, *OTHERS}


@pytest.mark.parametrize("output", FILE_OUTPUTS)
def test_a_file_stays_unless_told(output: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precious = place / file_words(output, "thesis.tex")[-1 if output != "convert destination" else 2]
    precious.write_text(THESIS)
    before = content(place)
    said = refused(file_words(output, "thesis.tex"), capsys)
    assert f"{precious.name} exists already" in said
    assert content(place) == before, "nothing else may be written before the refusal"
    if output not in NEVER_REPLACE:
        cli.main(file_words(output, "thesis.tex", overwrite=True))
        assert precious.read_bytes() != THESIS.encode()
    assert not list(place.rglob(".*.tmp"))


@pytest.mark.parametrize("output", FILE_OUTPUTS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_links_devices_folders_and_what_lies_below_a_file(
    output: str, overwrite: bool, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = place / "thesis.tex"
    precious.write_text(THESIS)
    end = ".avi" if output == "identify --save" else ""
    (place / f"link{end}").symlink_to(precious)
    (place / f"dangling{end}").symlink_to(place / "nowhere")
    (place / f"folder{end}").mkdir()
    os.mkfifo(place / f"pipe{end}")
    before = content(place)
    for name, reason in {
        "link": "is a symbolic link",
        "dangling": "is a symbolic link",
        "folder": "is a folder",
        "pipe": "is not a regular file",
        "thesis.tex/file": "thesis.tex is not a folder",
    }.items():
        assert reason in refused(file_words(output, name, overwrite), capsys)
    assert content(place) == before


@pytest.mark.parametrize("output", FOLDER_OUTPUTS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_stays_whatever_is_told(
    output: str, overwrite: bool, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "precious" / "deep").mkdir(parents=True)
    (place / "precious" / "deep" / "thesis.tex").write_text(THESIS)
    (place / "link").symlink_to(place / "precious")
    (place / "dangling").symlink_to(place / "nowhere")
    (place / "file").write_text(THESIS)
    before = content(place)
    for name, reason in {
        "precious": "precious exists already and is not empty",
        "link": "link is a symbolic link",
        "dangling": "dangling is a symbolic link",
        "file": "file is a file",
        "file/folder": "file is not a folder",
        ".": "is the current folder",
        "..": "is the current folder, holds it",
        "/": "is the current folder, holds it",
    }.items():
        if overwrite and output in NEVER_REPLACE:
            continue
        assert reason in refused(folder_words(output, name, overwrite), capsys)
    assert content(place) == before


@pytest.mark.parametrize("output", FOLDER_OUTPUTS)
def test_a_folder_of_ours(output: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "out").mkdir()
    cli.main(folder_words(output, "out"))  # an empty one is as good as none
    before = content(place / "out")
    assert len(before) > 1
    assert "out exists already" in refused(folder_words(output, "out"), capsys)
    assert content(place / "out") == before
    if output in NEVER_REPLACE:
        return
    cli.main(folder_words(output, "out", overwrite=True))
    assert content(place / "out").keys() == before.keys()
    for name in ("thesis.tex", "deep/thesis.tex", ".hidden"):
        own = place / "out" / name
        own.parent.mkdir(exist_ok=True)
        own.write_text(THESIS)
        before = content(place)
        said = refused(folder_words(output, "out", overwrite=True), capsys)
        assert f"out/{name} was not written by marginface" in said
        assert content(place) == before
        own.unlink()
    (place / "out" / "link").symlink_to(place / "people")
    assert "out/link was not written" in refused(folder_words(output, "out", overwrite=True), capsys)


def test_the_default_pages_of_evaluate_and_compare(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page of ours gives way to the next one; somebody else's does not."""
    words = {"report.html": ["evaluate", "model"], "compare.html": ["compare", "model", "other"]}
    for page, verb in words.items():
        cli.main([*verb, "--benchmark", "pairs.bin"])
        (place / page).write_text(f"{(place / page).read_text()}<!-- old -->")
        cli.main([*verb, "--benchmark", "pairs.bin"])
        assert "<!-- old -->" not in (place / page).read_text()
        (place / page).write_text("<!doctype html><title>mine</title>")
        assert f"{page} exists already" in refused([*verb, "--benchmark", "pairs.bin"], capsys)


def test_scores_beside_the_json_and_two_outputs_of_one_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "a.scores.npz").write_text(THESIS)
    words = ["evaluate", "model", "--benchmark", "pairs.bin"]
    assert "a.scores.npz exists already" in refused([*words, "--json", "a.json"], capsys)
    assert "given for two outputs" in refused([*words, "--json", "b", "--report", "./b", "--overwrite"], capsys)
    assert "given for two outputs" in refused(["inspect", "people", "--json", "b", "--html", "b"], capsys)
    assert (place / "a.scores.npz").read_text() == THESIS


def test_what_is_read_is_not_replaced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --overwrite too."""
    for name in ("m", "g.db"):
        (place / name).mkdir()
    save_model(place / "m" / "model")
    before = content(place)
    for words in (
        ["export", "m", "--to", "openvino", "-o", "m/model"],
        ["export", "m/model", "--to", "safetensors", "-o", "m/model/model.safetensors"],
        ["import", "m/model/model.safetensors", "-o", "m/model"],
        ["embed", "m", "people", "-o", "m/model/config.json"],
        ["evaluate", "m", "--benchmark", "pairs.bin", "--json", "m/model/config.json"],
        ["embed", "m", "people", "-o", "people/p00/p00_0001.jpg"],
        ["inspect", "people", "--json", "people/p00/p00_0001.jpg"],
        ["inspect", "people", "--write-clean", "people/p00/p00_0001.jpg"],
        ["gallery", "export", "g.db/people", "--gallery=g.db"],
        ["identify", "film.avi", "--gallery=g.db", "--threshold=0.9", "--save", "film.avi"],
    ):
        said = refused([*words, "--overwrite"], capsys)
        assert re.search(
            "would replace what is read|is a symbolic link|is part of what marginface wrote|which is read", said
        ), words
    assert content(place) == before


def test_a_new_folder_may_lie_in_the_model_it_is_made_of(place: Path) -> None:
    save_model(place / "run" / "model")
    cli.main(["export", "run", "--to", "safetensors", "-o", "run/weights.safetensors"])
    assert (place / "run" / "weights.safetensors").is_file()


def test_data_sets_do_not_grow_into_themselves(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_people(place / "set", people=3, images=2)
    before = content(place)
    for words in (
        ["convert", "set", "set"],
        ["convert", "set", "set/new", "--to", "folder"],
        ["align", "set", "set", "--detector=auto"],
        ["align", "set", "set/aligned", "--detector=auto"],
        ["identify", "photos", "--gallery=g.db", "--threshold=0.9", "--save", "photos"],
        ["identify", "photos", "--gallery=g.db", "--threshold=0.9", "--save", "photos/drawn", "--overwrite"],
    ):
        assert "which is read; give a folder outside of it" in refused(words, capsys), words
    assert content(place) == before


def test_align_adds_and_keeps(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there already and is no face of that size is reported, not taken for one."""
    own = place / "out" / "people" / "p00" / "p00_0001.png"
    own.parent.mkdir(parents=True)
    own.write_text(THESIS)
    cli.main(["align", "photographs.txt", "out", "--allow-outside"])
    told = capsys.readouterr()
    assert "2 faces in out, 0 were there already, 1 left out" in told.out
    assert "p00_0001.png exists already and is no such face" in " ".join(told.err.split())
    assert own.read_text() == THESIS
    cli.main(["align", "photographs.txt", "out", "--allow-outside"])
    assert "0 faces in out, 2 were there already, 1 left out" in capsys.readouterr().out


def test_annotated_photographs_do_not_replace_any(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["identify", "photos", "--gallery=g.db", "--threshold=0.9", "--save", "drawn"]
    cli.main(words)
    assert sorted(path.name for path in (place / "drawn").iterdir()) == ["a.jpg", "a.png.jpg"]
    (place / "drawn" / "a.jpg").write_text(THESIS)
    (place / "drawn" / "a.png.jpg").unlink()
    assert "drawn/a.jpg exists already" in refused(words, capsys)
    assert content(place / "drawn") == {"a.jpg": THESIS.encode()}
    cli.main([*words, "--overwrite"])
    assert len(content(place / "drawn")) == 2
    alone = ["identify", "photos/a.jpg", "--gallery=g.db", "--threshold=0.9", "--save", "photos", "--overwrite"]
    assert "would replace what is read" in refused(alone, capsys)


def python_files() -> dict[str, Callable[[Path, Path, bool], object]]:
    """(material, path, overwrite) -> a file, by the functions that write one."""

    def model(folder: Path) -> Embedder:
        return Embedder.load(folder / "model")

    return {
        "export": lambda m, path, yes: export(model(m), path, "safetensors", overwrite=yes),
        "embed_folder": lambda m, path, yes: embed_folder(model(m), m / "people", path, overwrite=yes),
        "write_pairs": lambda m, path, yes: write_pairs(path, make_folder_pairs(m / "people", 5), yes),
    }


@pytest.mark.parametrize("function", python_files())
def test_files_from_python(function: str, material: Path, tmp_path: Path) -> None:
    write = python_files()[function]
    path = tmp_path / "thesis.tex"
    path.write_text(THESIS)
    with pytest.raises(InputError, match=r"thesis.tex exists already.*overwrite"):
        write(material, path, False)
    assert content(tmp_path) == {"thesis.tex": THESIS.encode()}
    write(material, path, True)
    assert path.read_bytes() != THESIS.encode()


def python_folders() -> dict[str, Callable[[Path, Path, bool], object]]:
    return {
        "Embedder.save": lambda m, path, yes: Embedder.load(m / "model").save(path, yes),
        "Gallery.export": lambda m, path, yes: Gallery(EmptyStore(), MODEL).export(path, yes),  # type: ignore[arg-type]
        "save_imported": lambda m, path, yes: save_imported(import_checkpoint(m / "backbone.pth"), path, "x", yes),
        "export": lambda m, path, yes: export(Embedder.load(m / "model"), path, "openvino", overwrite=yes),
        "write_folder": lambda m, path, yes: write_folder(SyntheticFaces(2, 1), path),
        "fetch": lambda m, path, yes: fetch("olivetti", path),
        "convert": lambda m, path, yes: convert(str(m / "people"), path),
    }


@pytest.mark.parametrize("function", python_folders())
def test_folders_from_python(function: str, material: Path, tmp_path: Path) -> None:
    write = python_folders()[function]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text(THESIS)
    for overwrite in (False, True):
        with pytest.raises(InputError, match="precious exists already and is not empty"):
            write(material, precious, overwrite)
    assert content(tmp_path) == {"precious": None, "precious/thesis.tex": THESIS.encode()}
    write(material, tmp_path / "out", False)
    with pytest.raises(InputError, match="out exists already"):
        write(material, tmp_path / "out", False)
    (tmp_path / "out" / "thesis.tex").write_text(THESIS)
    with pytest.raises(InputError, match=r"thesis.tex was not written by marginface|out exists already"):
        write(material, tmp_path / "out", True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == THESIS


def test_verification_sets_are_never_replaced(material: Path, tmp_path: Path) -> None:
    (tmp_path / "out.bin").write_text(THESIS)
    with pytest.raises(InputError, match="exists already"):
        convert_pairs(str(material / "people"), tmp_path / "out.bin")


def disturbed_file(path: Path) -> None:
    with create_file(path):
        path.write_text(THESIS)


def disturbed_folder(path: Path) -> None:
    with replace_folder(path):
        path.mkdir()
        (path / "thesis.tex").write_text(THESIS)


def test_what_appears_during_the_work_stays(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        disturbed_file(tmp_path / "a")
    with pytest.raises(InputError, match="b exists already and is not empty"):
        disturbed_folder(tmp_path / "b")
    assert content(tmp_path) == {"a": THESIS.encode(), "b": None, "b/thesis.tex": THESIS.encode()}


@pytest.mark.parametrize("marker", ["", "marginface folder 1", "marginface folder 2\nthesis.tex\n", "\0\xff", "link"])
def test_a_marker_that_does_not_list_a_file_does_not_give_it_away(marker: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.tex").write_text(THESIS)
    if marker == "link":
        (tmp_path / "elsewhere").write_text("marginface folder 1\nthesis.tex\n")
        (folder / MARKER).symlink_to(tmp_path / "elsewhere")
    else:
        (folder / MARKER).write_text(marker, encoding="latin-1")
    with pytest.raises(InputError):
        check_folder(folder, overwrite=True)


def replaced(target: Path) -> None:
    with replace_folder(target, overwrite=True) as temporary:
        (temporary / "new").write_text("new")


@pytest.mark.parametrize("exchange", [True, False])
def test_the_old_folder_is_there_until_the_new_one_is(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far the move comes: with systems that exchange names in one step, and with those that do not."""
    if not exchange:
        monkeypatch.setattr(marginface.files, "_exchange", lambda one, other: False)
    target = tmp_path / "model"
    with replace_folder(target) as temporary:
        (temporary / "old").write_text("old")
    rename = Path.replace

    def fail(path: Path, to: Path) -> Path:
        if path.name.endswith(".tmp"):
            raise OSError(28, "No space left on device")
        return rename(path, to)

    if not exchange:
        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="No space left") as caught:
            replaced(target)
        assert caught.value.filename == str(target)
        assert (target / "old").read_text() == "old"
        monkeypatch.setattr(Path, "replace", rename)
    replaced(target)
    assert sorted(path.name for path in target.iterdir()) == [MARKER, "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_readers_do_not_see_the_marker(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "set") as folder:
        write_folder(SyntheticFaces(3, 2, size=32), folder)
    assert (tmp_path / "set" / MARKER).is_file()
    reader = open_reader(str(tmp_path / "set"))
    assert (len(reader), reader.num_classes) == (6, 3)
    (tmp_path / "set" / "p" / "q").mkdir(parents=True)
    (tmp_path / "set" / "p" / "q" / MARKER).write_text("")
    assert len(open_reader(str(tmp_path / "set"))) == 6


def test_a_run_takes_no_place_that_holds_anything(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text(THESIS)
    (tmp_path / "a-2").write_text(THESIS)
    (tmp_path / "a-3").symlink_to(tmp_path / "a")
    (tmp_path / "a-4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a-5").mkdir()
    before = content(tmp_path)
    for name in ("a", "a-2", "a-3", "a-4"):
        with pytest.raises(InputError, match=f"{name} exists already: give another --name$"):
            create_run(str(tmp_path), name, False, lambda run: run.config.write_text("x"))
    assert content(tmp_path) == before
    assert create_run(str(tmp_path), "a", True, lambda run: run.config.write_text("x")).folder.name == "a-5"
    with pytest.raises(InputError, match="or continue it with --resume"):
        create_run(str(tmp_path), "a-5", False, lambda run: run.config.write_text("x"))


def test_labels_that_somebody_keeps_beside_the_data_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "train.labels.npy").write_text(THESIS)
    (tmp_path / "train.rec").write_text("newer")
    sidecar.save_labels(tmp_path / "train.rec", np.arange(3))
    assert (tmp_path / "train.labels.npy").read_text() == THESIS
    os.utime(tmp_path / "train.labels.npy", ns=(0, 0))
    found = sidecar.load_labels(tmp_path / "train.rec", 3)
    assert found is not None
    assert found.tolist() == [0, 1, 2]


REMOVERS = {
    "files.py": {"rmtree", "unlink", "rename", "replace", "replace_file"},  # what `check_folder` allows
    "convert.py": {"replace", "unlink", "replace_file"},  # the staging folder and its journal
    "training/run.py": {"rename"},  # a temporary folder
    "weights/state.py": {"rmdir", "unlink", "replace", "replace_file"},  # checkpoints of a run
    "evaluate/store.py": {"unlink", "rmdir"},  # the three files it writes
    "gallery/milvus_files.py": {"rmtree", "replace_file"},  # a collection that a record of ours says to drop
    "export/exporting.py": {"unlink"},  # in the temporary folder of an export
    "readers/folder_writer.py": {"replace"},  # in the staging folder of `convert`
    "readers/table_writer.py": {"rename"},  # the same
    "fetch.py": {"rename"},  # in a temporary folder
    "align.py": {"replace_file"},  # a face that is not there yet
    "readers/remote.py": {"replace_file"},  # the cache
    "readers/sidecar.py": {"replace_file"},  # the cache, or a name that is free
    "protocols/ijb_meta.py": {"replace_file"},  # the cache
    "loading/alignment.py": {"replace_file"},  # the note of `align` and `convert` in the folder that they write
    "evaluate/saved.py": {"replace_file"},  # a threshold in the model's own config.json
    "training/monitor.py": {"replace_file"},  # files of a run
    "training/samples.py": {"replace_file"},
    "training/tracing.py": {"replace_file"},
}


def test_who_may_remove_and_replace() -> None:
    """Others go through `create_file` and `replace_folder`, which ask first."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            one_argument = len(node.args) == 1 and not node.keywords  # unlike str.replace and dataclasses.replace
            if name in ("rmtree", "unlink", "rmdir", "rename", "renames", "replace_file") or (
                name == "replace" and one_argument
            ):
                found.setdefault(str(path.relative_to(PACKAGE)), set()).add(name)
    assert found == REMOVERS
