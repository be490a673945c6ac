"""Lines for people to read: not wrapped, no markup, and any file name can be printed. Floor 0."""

import io
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TextIO

from rich.console import Console

from marginface.filenames import ERRORS

WIDE = 168  # characters of a table in a log file or a pipe, whatever COLUMNS says
EVERY = 30.0  # seconds between two lines of progress in a log file
CONTROLS = re.compile(  # all but tab and line break; those from U+200E on turn the direction of writing
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def make_printable(*streams: TextIO | None) -> None:
    """Let streams such as stdout take every text: what their encoding lacks is written as an escape."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def open_console(stderr: bool = False, **words: Any) -> Console:
    """Return a console for tables: as wide as the terminal, or at least WIDE where there is none."""
    console = Console(stderr=stderr, **words)
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    return console


def print_line(text: str, console: Console | None = None, style: str = "") -> None:
    """Print `text` as it is, its control characters as escapes, so that no name moves the cursor."""
    (console or Console()).print(visible(text), style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


def visible(text: str) -> str:
    """Return `text` with its control characters, but tab and line break, as escapes."""
    return CONTROLS.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\u0100" else f"\\u{ord(found[0]):04x}", text
    )


def progress_lines(text: str, console: Console) -> Callable[[int, int], None]:
    """Return what prints a line of progress now and then, and at the end: for log files."""
    start = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= EVERY:
            last = now
            print_line(f"{text} {done:,}/{total:,} {timedelta(seconds=round(now - start))}", console)

    return report
