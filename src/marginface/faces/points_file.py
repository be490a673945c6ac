"""Five points a photograph, as LFW's landmark lists write them: `Name/Name_0001.jpg`, then ten numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from marginface.errors import InputError


def read_points(path: str | Path) -> Mapping[str, np.ndarray]:
    """Name as written in the file -> float64 (5, 2), x and y in pixels: eyes, nose, mouth corners as seen.

    Tabs or spaces between the fields. Raises InputError naming the line that is not a name and ten finite numbers,
    or that gives a name a second time.
    """
    points: dict[str, np.ndarray] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        name, *fields = line.strip().rsplit(None, 10)
        try:
            values = np.array(fields, np.float64)
        except ValueError:
            values = np.array([])
        if values.size != 10 or not np.isfinite(values).all():
            raise InputError(
                f"{path}, line {number}: expected an image's name and ten numbers (x and y of five points), "
                f"but it reads {line.strip()[:80]!r}"
            )
        if name in points:
            raise InputError(f"{path}, line {number}: {name} has had its points before; leave one line for it")
        points[name] = values.reshape(5, 2)
    return points


def read_names(path: str | Path) -> set[str]:
    """The people named in a list, one a line; what follows a tab (LFW writes the number of images) is left out."""
    return {line.split("\t")[0].strip() for line in _text(path).splitlines() if line.strip()}


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}") from error
