"""Libraries that only some formats need: loaded when such a set is opened, with advice if they are missing."""

import importlib
from pathlib import Path
from typing import Any

from marginface.errors import InputError


def load_extra(module: str, extra: str, path: Path) -> Any:
    """The module, which `pip install marginface[extra]` brings. Raises InputError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{path}: reading this format needs {module.partition('.')[0]}; install it with"
            f" `pip install 'marginface[{extra}]'`."
        ) from error
