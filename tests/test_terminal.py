"""Lines for people: whole, without markup, and any name can be printed in any encoding."""

import io

import pytest
from rich.console import Console

from marginface import terminal
from marginface.terminal import make_printable, open_console, print_line, progress_lines, visible


def printed(text: str, width: int = 20) -> str:
    stream = io.StringIO()
    print_line(text, Console(file=stream, width=width))
    return stream.getvalue()


def test_a_line_is_printed_as_it_is() -> None:
    for text in ("long " * 50, "[bold]x[/] [/nonsense] :smile: 1.5", "a\nb"):
        assert printed(text) == f"{text}\n"


def test_names_do_not_move_the_cursor() -> None:
    assert printed("a\u202eb") == "a\\u202eb\n"
    assert printed("a\x1b[31m\rb\x9b") == "a\\x1b[31m\\x0db\\x9b\n"
    assert visible("tab\tand\nbreak") == "tab\tand\nbreak"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252", "shift_jis"])
def test_every_encoding_takes_every_name(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    make_printable(stream, None, io.StringIO())
    print_line("Zoë 日本 caf\udce9 \U0001f600", Console(file=stream, width=20))
    stream.flush()
    assert raw.getvalue().startswith(b"Zo")
    assert raw.getvalue().count(b"\n") == 1


def test_tables_in_a_log_file_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert open_console(file=io.StringIO()).width == terminal.WIDE


def test_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    report = progress_lines("reading", Console(file=stream, width=10))
    for done in range(1, 101):
        now[0] += 1
        report(done, 100)
    lines = stream.getvalue().splitlines()
    assert lines == [f"reading {done}/100 0:{done // 60:02}:{done % 60:02}" for done in (30, 60, 90, 100)]
