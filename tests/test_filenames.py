"""Names that come from files and options stay single names, below the folder they belong to."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginface.errors import InputError
from marginface.filenames import ERRORS, as_file_name, as_text, check_file_name, is_file_name, leads_out

ANYTHING = st.text(st.characters(codec=None), max_size=300)


@pytest.mark.parametrize("name", ["a", "r50-ms1mv3", "lfw_2024.01.05", "名前", "x" * 200])
def test_names(name: str) -> None:
    check_file_name(name, "name")
    check_file_name(f"\udce9{name}"[:200], "name")
    assert as_file_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../../escape", "/tmp/escape", "a/b", "a\\b", "a\0b", "a\nb", ".hidden", "-o", "~", " a", "C:x",
     "x" * 201, "é" * 101, "a\x1b[31m", "a*", "...", " "],
)  # fmt: skip
def test_no_names(name: str) -> None:
    with pytest.raises(InputError, match=r"name is .*: give the name of one folder"):
        check_file_name(name, "name")


@given(ANYTHING)
def test_anything_becomes_one_name(text: str) -> None:
    name = as_file_name(text)
    assert is_file_name(name)
    assert as_file_name(name) == name
    assert Path("/x", name).parent == Path("/x")
    assert Path(os.path.normpath(f"/x/{name}")).parent == Path("/x")


@given(ANYTHING | st.lists(st.sampled_from(["..", ".", "", "a", ".b", "\0", "\\", "...", "~"])).map("/".join))
def test_keys_that_do_not_lead_out_stay_below(key: str) -> None:
    if not leads_out(key):
        assert Path(os.path.normpath(f"/x/{key}")).is_relative_to("/x/")
        assert os.path.normpath(f"/x/{key}") != "/x"


@given(st.binary(max_size=50).filter(lambda name: b"\0" not in name))
def test_every_file_name_is_text(name: bytes) -> None:
    text = as_text(os.fsdecode(name))
    text.encode("utf-8")
    assert as_text(text) == text


def test_text_of_latin_1() -> None:
    assert as_text(os.fsdecode(b"Jos\xe9")) == r"Jos\xe9"
    assert as_text("José") == "José"


def test_any_text_can_be_written_in_any_encoding() -> None:
    assert "é\udce9\ud800".encode("ascii", ERRORS) == rb"\xe9" + b"\xe9" + rb"\ud800"
    assert as_text("\ud800\udce9") == r"\ud800\xe9"
