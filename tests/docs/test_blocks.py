"""Every block of every page runs, on tiny sets of the published formats; what cannot run is named here, with why."""

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from marginface import cli
from marginface.commands import COMMANDS, train
from marginface.embedder import Embedder
from marginface.faces.template import ARCFACE_112, crop_face
from marginface.training.config import Config, TrainerConfig
from marginface.training.openvino_options import KEYS
from marginface.training.start import start_training
from pages import Block, blocks, command_lines, fences, inline_commands
from readers_have import TINY, write_everything
from recognition import EYE, MODEL, photograph

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LANGUAGES = {"sh", "python", "yaml", "text"}
# What stands above a block that is not run, and why it is not. Its words are parsed all the same.
NOT_RUN = {
    "installs packages": "tests need no network",
    "needs an account on the Hub": "tests need no network; tests/weights/test_hub.py runs it against a stub",
    "needs a camera": "there is none; a film is read by the same lines",
    "needs a cluster": "several GPUs or machines; tests/training starts several processes here",
    "needs the faces of LFW": "an hour of training comes before; docs/models.md makes int8 of another model, nightly",
    "needs a running page": "tests/security/test_page.py asks the page over HTTP, with and without its token",
    "serves until Ctrl-C": "it would not return; tests/demo opens the page",
}
LONG = ("models", "guides/coming-from-adaface", "guides/coming-from-openvino")  # int8, networks of real size: nightly
ONNX = "deploy"  # the page that makes an ONNX file by day; the others do so nightly
ABOUT_PEOPLE = ("gallery", "identify", "verify")  # they store vectors in Milvus


def identity(page: Path) -> str:
    return str(page.relative_to(DOCS).with_suffix(""))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_everything(tmp_path_factory.mktemp("docs"))


@pytest.fixture
def short(house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training as the command asks for it, but a few steps of a tiny network here; faces are squares of a colour."""
    monkeypatch.chdir(house)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def start(config: Config, **options: Any) -> None:
        drawn = config.data.train.startswith("synthetic")
        val = ["faces_emore/lfw.bin" if name.startswith("synthetic") else name for name in config.data.val[:1]]
        light = config.model.backbone == "mobilefacenet-se"
        start_training(
            replace(
                config,
                data=replace(
                    config.data, train="photographs" if drawn else config.data.train, val=val, batch_size=16, workers=1
                ),
                model=config.model if light else TINY,
                train=replace(config.train, epochs=1, eval_every=0, patience=0),
                trainer=TrainerConfig(accelerator="cpu"),
            ),
            **options | {"numbered": True},
        )

    monkeypatch.setattr(train, "start_training", start)
    for verb in ABOUT_PEOPLE:
        module = importlib.import_module(f"marginface.commands.{verb}")
        monkeypatch.setattr(module, "open_eye", lambda options: EYE)
    gallery = importlib.import_module("marginface.commands.gallery")
    monkeypatch.setattr(gallery, "open_model", lambda where: MODEL)


def shell(page: Path, run: bool) -> list[str]:
    """The commands of a page: those to run, or those that only can be parsed."""
    chosen = [block for block in fences(page) if block.language == "sh" and bool(block.title) != run]
    return [line for block in chosen for line in command_lines(block.text)]


def pages_to_run() -> Iterator[Any]:
    for page in PAGES:
        if shell(page, run=True):
            yield pytest.param(page, id=identity(page), marks=[pytest.mark.slow] if identity(page) in LONG else [])


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("page", list(pages_to_run()))
def test_every_command(page: Path, request: pytest.FixtureRequest) -> None:
    for line in shell(page, run=True):
        words = shlex.split(line, comments=True)
        assert words[0] == "marginface", f"a command this test does not know: {line}"
        if words[1] == "export" and "onnx" in words and identity(page) != ONNX and not request.config.option.slow:
            continue
        if at := words.index(">") if ">" in words else 0:
            words = words[:at]
        if "--print_config" in words:
            with pytest.raises(SystemExit) as end:
                cli.main(words[1:])
            assert not end.value.code
        else:
            cli.main(words[1:])


def check_options(words: list[str]) -> None:
    """The verb and all its options exist; nothing is run."""
    assert words[1] in COMMANDS, shlex.join(words)
    parser = ArgumentParser()
    importlib.import_module(f"marginface.commands.{words[1]}").options(parser)
    known = {*parser._option_string_actions, *(f"--{key}" for key in vars(parser.get_defaults().as_flat()))}
    for word in words[2:]:
        name = word.partition("=")[0]
        free = name.startswith(("--margin.options", "--model.options")) or name[2:] in KEYS
        if name.startswith("--") and not free:
            assert name in known or "--" + name[2:].replace("-", "_") in known, f"no {name} in {shlex.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_options_exist(page: Path) -> None:
    """Of every command in a block or in a sentence, run or not."""
    for line in [*shell(page, run=True), *shell(page, run=False), *inline_commands(page)]:
        words = shlex.split(line, comments=True)
        words = words[words.index("marginface") :] if "marginface" in words else []
        if words[1:2] not in ([], ["VERB"], ["COMMAND"]):
            check_options(words)


def test_only_these_are_not_run() -> None:
    titles = {block.title for page in PAGES for block in fences(page) if block.title}
    assert titles == set(NOT_RUN)


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_no_command_hides(page: Path) -> None:
    found: list[Block] = fences(page)
    assert page.read_text(encoding="utf-8").count("\n```") >= 2 * len(found) - 1
    for block in found:
        assert block.language in LANGUAGES, f"{page.name}: a block in {block.language or 'no language'}"
        assert block.language == "sh" or not re.search(r"^\s*marginface ", block.text, re.MULTILINE)


ELSEWHERE = ("margins", "softmax")  # their rooms' tests run these pages' Python
PYTHON = [
    (page, number) for page in PAGES if page.stem not in ELSEWHERE for number in range(len(blocks(page, "python")))
]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("page", "number"), PYTHON, ids=[f"{identity(page)}-{number}" for page, number in PYTHON])
def test_python(page: Path, number: int) -> None:
    text = blocks(page, "python")[number]
    if "face.onnx" in text and not Path("face.onnx").exists():
        cli.main(shlex.split("export runs/mine --to onnx -o face.onnx --pixels true --unit true"))
    names: dict[str, Any] = {
        "__name__": "block",
        "image": photograph(((200, 30, 30), 20, 20)),
        "photograph": photograph(((200, 30, 30), 20, 20)),
        "points": ARCFACE_112 / 2 + 20,
    }
    exec(compile(text, f"{page.name}, block {number}", "exec"), names)
    if "face.onnx" in text:  # the application's own few lines give what the model gives
        face = crop_face(names["photograph"], names["points"])
        assert np.abs(names["align"](names["photograph"], names["points"]).astype(int) - face).max() <= 1
        expected = Embedder.load("runs/mine/model").embed(face[None])[0]
        assert names["embed"](names["photograph"], names["points"]) @ expected > 0.9995
