"""Files of strangers are opened only if they are files, and read only as far as their size allows."""

import os
import socket
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bounded import outcome, refusal
from bounded_imports import count_lines
from marginface.errors import InputError
from marginface.untrusted import (
    LARGEST_CONFIG,
    LONGEST_LINE,
    free_memory,
    open_file,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_lines,
    read_text,
    read_yaml,
)

READ = [open_file, read_bytes, read_text, count_lines, read_json, read_yaml]


@pytest.fixture
def special(tmp_path, request):
    path = tmp_path / "x.json"
    if request.param == "FIFO":
        os.mkfifo(path)
    elif request.param == "socket":
        socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path, request.param


@pytest.mark.parametrize("special", ["FIFO", "socket", "device", "folder"], indirect=True)
@pytest.mark.parametrize("read", READ)
def test_only_files_are_opened(special, read):
    path, kind = special
    assert refusal(read, path, seconds=10) == f"{path}: is a {kind}, not a file; give a regular file."


@pytest.mark.parametrize("read", READ)
def test_a_missing_file_is_the_system_s_error(tmp_path, read):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "x")


def test_descriptors_are_closed(tmp_path):
    (tmp_path / "x").write_bytes(b"{}\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for read in READ[1:]:
        read(tmp_path / "x")
        with pytest.raises(InputError):
            read(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@given(st.binary(max_size=300))
def test_bytes_are_read_whole(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "x"
    path.write_bytes(content)
    assert read_bytes(path) == read_bytes(path, len(content)) == content
    with open_file(path) as file:
        assert file.read() == content


def test_a_limit_is_checked_before_reading(tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(1 << 42)  # of which the disk holds nothing
    for read in (*READ[1:3], *READ[4:]):
        assert "bytes, more than the" in refusal(read, path)
    assert "line 1 has over 65,536 characters" in refusal(count_lines, path)


def test_free_memory_heeds_the_limits_of_the_process():
    assert free_memory() > 1 << 26
    kind, free = outcome(free_memory)
    assert kind == "returned"
    assert free < 1 << 34


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20), max_size=9))
def test_lines_and_text_are_as_python_reads_them(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "x"
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    assert read_text(path) == path.read_text("utf-8")
    with path.open(encoding="utf-8") as file:
        assert list(read_lines(path)) == list(file)


def test_lines_of_any_allowed_length(tmp_path):
    path = tmp_path / "x"
    longest = ["a" * (LONGEST_LINE - 1) + "\n", "b" * (LONGEST_LINE - 1)]
    path.write_text("".join(longest))
    assert list(read_lines(path)) == longest
    path.write_text("x\n" + "".join(longest) + "b")
    with pytest.raises(InputError, match="line 3 has over 65,536 characters; put each entry on its own line"):
        list(read_lines(path))


def test_what_is_no_text(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc\n\xff\xfe")
    for read in (read_text, count_lines, read_yaml):
        with pytest.raises(InputError, match="is not UTF-8 text"):
            read(path)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text("abc: -#\n", max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_yaml_is_read_as_its_library_reads_it(value):
    text = yaml.safe_dump([value, value])
    assert parse_yaml(text) == yaml.safe_load(text) == [value, value]


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(9 * [f'*{before}'])}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIASES, "stands for more than 10,000 values"),
        (MERGES, "stands for more than 10,000 values"),
        ("- x\n" * 20_000, "stands for more than 10,000 values"),
        ("&a [*a]", "an alias contains itself"),
        ("a: &a {b: *a}", "an alias contains itself"),
        ("[" * 50_000, "nested too deeply"),
        ("- " * 50_000, "nested too deeply"),
        ("? " * 50_000, "nested too deeply"),
        ("#" * (LARGEST_CONFIG + 1), "characters, more than"),
        ("1" * 5000, "digits"),
        ("2024-99-99", "month must be in"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: b: c", "mapping values are not allowed here"),
    ],
)
def test_yaml_that_takes_memory_or_time(text, message):
    kind, answer = outcome(parse_yaml, text)
    assert (kind, "ValueError" in answer, message in answer) == ("raised", True, True)


def test_json_that_is_nested_deeply():
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
    assert parse_json(b'{"a": [1, null]}') == {"a": [1, None]}
