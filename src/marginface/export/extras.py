"""Optional libraries, imported when they are needed. For the formats."""

from typing import Any

from marginface.backbones.openvino_run import silent
from marginface.errors import InputError


def library(name: str, extra: str) -> Any:
    """The module `name`, kept from telling anybody. Raises InputError saying which extra of marginface brings it."""
    try:
        return silent(name)
    except ImportError as error:
        raise InputError(
            f"{name.partition('.')[0]} is not installed, and this format needs it: pip install 'marginface[{extra}]'"
        ) from error
