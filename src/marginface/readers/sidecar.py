"""What a long scan found, kept for the next time: beside the data, or in the cache if that is read-only."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from marginface.files import replace_file


def find(source: Path, suffix: str) -> Path | None:
    """The file written by `save` for this source, unless the source has changed since."""
    for candidate in _places(source, suffix):
        with contextlib.suppress(OSError):
            if candidate.stat().st_mtime_ns >= source.stat().st_mtime_ns:
                return candidate
    return None


def save(source: Path, suffix: str, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a new file at the first place that takes it; having no place at all is no error."""
    for candidate in _places(source, suffix):
        with contextlib.suppress(OSError), replace_file(candidate) as temporary:
            write(temporary)
            return


def _places(source: Path, suffix: str) -> list[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marginface"
    name = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:16]
    return [source.with_suffix(suffix), cache / name / f"{source.stem}{suffix}"]
