"""What the documentation tells people to type."""

import re
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r'^```(\w*)(?: title="([^"\n]*)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(marginface [^`\n]+)`")


class Block(NamedTuple):
    """A fenced block: its language, what stands above it, its text."""

    language: str
    title: str
    text: str


def fences(path: Path) -> list[Block]:
    """All fenced blocks of a Markdown file, in order."""
    return [Block(*parts) for parts in FENCE.findall(path.read_text(encoding="utf-8"))]


def blocks(path: Path, language: str) -> list[str]:
    """The text of the fenced blocks in one language, without those that have a title, in order."""
    return [block.text for block in fences(path) if block.language == language and not block.title]


def command_lines(text: str) -> list[str]:
    """The commands of a shell block, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def inline_commands(path: Path) -> list[str]:
    """Commands within sentences and tables, without those that leave something out."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [found for found in INLINE.findall(text) if not re.search(r"…|\.\.\.|\||\{", found)]
