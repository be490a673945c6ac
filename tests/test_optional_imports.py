"""Optional libraries: imported with telemetry disabled, or refused with the extra that brings them."""

import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from marginface import optional_imports
from marginface.errors import InputError
from marginface.optional_imports import EXTRAS, TELEMETRY_OFF, load_library

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


@pytest.mark.parametrize("name", TELEMETRY_OFF)
def test_switches_are_set_before_the_import(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "what somebody else set")
    seen = []
    monkeypatch.setattr(importlib, "import_module", lambda module: seen.append(os.environ[name]))
    load_library("onnxruntime")
    assert seen == [TELEMETRY_OFF[name]]


def test_openvino_finds_nothing_to_report_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    optional_imports.disable_telemetry()
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")


KEPT = """
import logging, sys
from marginface.optional_imports import load_library
class Handler(logging.Handler):
    def close(self): sys.exit("closed")
handler = Handler()
logging.getLogger().addHandler(handler)
for library in sys.argv[1:]: load_library(library)
assert logging.getLogger().handlers == [handler] and logging.config.dictConfig.__module__ == "logging.config"
handler.close = lambda: None
"""


@pytest.mark.parametrize("libraries", [("pymilvus",), pytest.param(EXTRAS, marks=pytest.mark.slow)], ids=["one", "all"])
def test_the_logging_of_the_program_is_left_as_it_is(libraries: Iterable[str]) -> None:
    run = subprocess.run([sys.executable, "-c", KEPT, *libraries], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("library", EXTRAS)
def test_a_library_that_is_missing(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    expected = rf"^a\.h5: reading it needs {library}, which .*pip install 'marginface\[{EXTRAS[library]}\]'$"
    with pytest.raises(InputError, match=expected):
        load_library(library, "a.h5: reading it")


def test_every_extra_exists() -> None:
    assert set(EXTRAS.values()) <= set(tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"])
