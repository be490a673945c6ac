"""Optional libraries, imported when they are needed. For the formats."""

import importlib
from typing import Any

from marginface.errors import InputError


def library(name: str, extra: str) -> Any:
    """The module `name`. Raises InputError saying which extra of marginface brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name.partition('.')[0]} is not installed, and this format needs it: pip install 'marginface[{extra}]'"
        ) from error
