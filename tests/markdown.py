"""What the documentation tells people to type."""

import re
from pathlib import Path


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a Markdown file in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
