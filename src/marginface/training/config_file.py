"""Checks a run's YAML before the parser sees it: the parser imports whatever module a `class_path` names."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from marginface.errors import InputError
from marginface.training.config import Config
from marginface.untrusted import LARGEST_CONFIG, parse_yaml, read_text


def check_config_file(path: str | Path) -> dict[str, Any]:
    """Return the settings of a YAML file that anybody may have written.

    Raises InputError, naming the setting, for what is no YAML or too much of it, for a group of settings that is none,
    and for `class_path` and `config`, with which the parser would import a module or open another file.
    """
    path = Path(path)
    text = read_text(path, LARGEST_CONFIG, "utf-8-sig")
    try:
        content = parse_yaml(text)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a YAML configuration: {str(error)[:300]}") from error
    settings: dict[str, Any] = _group(Config, content, path, "")
    return settings


def _group(kind: type, content: Any, path: Path, name: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        what = f"{name} is {content!r:.60}" if name else f"it holds {content!r:.60}"
        example = f"{name or 'data'}: {{{next(iter(get_type_hints(kind)))}: ...}}"
        raise InputError(f"{path}: {what}; give settings with their names, such as {example}")
    hints = get_type_hints(kind)
    for key, value in content.items():
        first, _, rest = str(key).partition(".")
        full = f"{name}.{first}".lstrip(".")
        if first == "class_path":
            raise InputError(
                f"{path}: {full} is not taken, since it would import {value!r:.60}; "
                f"name the network as model.backbone and the loss as margin.name"
            )
        if first == "config":
            raise InputError(f"{path}: a configuration cannot open another; give --config several times instead")
        if is_dataclass(hints.get(first)):
            _group(hints[first], {rest: value} if rest else value, path, full)
    return dict(content)
