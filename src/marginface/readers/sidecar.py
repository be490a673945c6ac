"""What a long scan found, kept for the next time: beside the data, or in the cache if that is read-only."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from marginface.files import replace_file
from marginface.readers.numpy_files import read_npy

LABELS = ".labels.npy"


def find(source: Path, suffix: str) -> Path | None:
    """The file written by `save` for this source, unless the source has changed since; a symbolic link is not ours."""
    for candidate in _places(source, suffix):
        with contextlib.suppress(OSError):
            if candidate.lstat().st_mtime_ns >= source.stat().st_mtime_ns and not candidate.is_symlink():
                return candidate
    return None


def save(source: Path, suffix: str, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new file at the first place that takes it; having no place at all is no error.

    Beside the data a file that exists stays: it may be somebody's own.
    """
    beside, cached = _places(source, suffix)
    for candidate in [cached] if beside.exists() else [beside, cached]:
        with contextlib.suppress(OSError), replace_file(candidate) as temporary:
            write(temporary)
            return


def load_labels(source: Path, length: int) -> np.ndarray | None:
    """The labels of a set of `length` images as `save_labels` wrote them; None if there are none, or others."""
    file = find(source, LABELS)
    if file is None:
        return None
    try:
        labels = read_npy(file)  # takes no memory for what it claims
    except (OSError, ValueError):
        return None
    return np.array(labels) if labels.shape == (length,) and labels.dtype == np.int64 else None


def save_labels(source: Path, labels: np.ndarray) -> None:
    """Keeps int64 (N,) labels that took a pass over the whole set to find."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, labels, allow_pickle=False)

    save(source, LABELS, write)


def cache_folder() -> Path:
    """Where what can be made or fetched again is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marginface"


def _places(source: Path, suffix: str) -> list[Path]:
    name = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:16]
    return [source.with_suffix(suffix), cache_folder() / name / f"{source.stem}{suffix}"]
