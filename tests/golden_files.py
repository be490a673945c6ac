"""Reference numbers: `MARGINFACE_GOLDEN` names the folder, `tests/golden` is the small copy used by default."""

import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(os.environ.get("MARGINFACE_GOLDEN", Path(__file__).parent / "golden"))


@functools.cache
def manifest() -> dict[str, Any]:
    return json.loads((FOLDER / "manifest.json").read_text())


def entries(prefix: str) -> list[str]:
    """Names of the manifest's entries below `prefix`, for `pytest.mark.parametrize`."""
    return sorted(name for name in manifest()["entries"] if name.startswith(prefix))


def entry(name: str) -> dict[str, Any]:
    return manifest()["entries"][name]


def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of one npz file; never unpickles."""
    with np.load(FOLDER / name, allow_pickle=False) as file:
        return dict(file)


def tolerance(name: str) -> dict[str, float]:
    """{"rtol": ..., "atol": ...} in float64, out of the manifest's words."""
    words = entry(name)["tolerance"]
    found = re.findall(r"(rtol|atol) ([\d.e+-]+)", words["float64"] if isinstance(words, dict) else words)
    assert {key for key, _ in found} == {"rtol", "atol"}, words
    return {key: float(value) for key, value in found}
