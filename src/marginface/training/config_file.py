"""Checks a run's YAML before the parser sees it: the parser imports whatever module a `class_path` names."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from marginface.errors import InputError
from marginface.readers.remote import is_command
from marginface.training.config import Config
from marginface.untrusted import LARGEST_CONFIG, parse_yaml, read_text

LIGHTNING = {
    "datamodule": "data.train and data.batch_size",
    "data": "data.train and data.batch_size",
    "trainer": "trainer.devices and train.epochs",
    "optimizer": "optim.name and optim.lr",
}
"""What stands for a group of Lightning's that makes a class."""
VARIABLE = re.compile(r"\$\{(?:oc\.env:)?([^}]*)\}")


def check_config_file(path: str | Path) -> dict[str, Any]:
    """Return the settings of a YAML file that anybody may have written.

    Raises InputError, naming the setting, for what is no YAML or too much of it, for a group of settings that is none,
    for `class_path` and `config`, with which the parser would import a module or open another file, and for variables
    such as ${oc.env:HOME}, which nothing fills in.
    """
    path = Path(path)
    text = read_text(path, LARGEST_CONFIG, "utf-8-sig")
    try:
        content = parse_yaml(text)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a YAML configuration: {str(error)[:300]}") from error
    for name, value in named_values(content, ""):
        group, _, last = name.rpartition(".")
        if last == "class_path":
            ours = LIGHTNING.get(group.partition(".")[0], "model.backbone and margin.name")
            raise InputError(
                f"{path}: {name:.100} is not taken, since it would import {value!r:.60}, as Lightning does; give what "
                f"it stands for as {ours} (docs/guides/coming-from-femb.md)"
            )
        if isinstance(value, str):
            check_variables(f"{path}: {name:.100}", name, value)
    settings: dict[str, Any] = _group(Config, content, path, "")
    return settings


def check_variables(where: str, name: str, value: str) -> None:
    """Raise InputError for a variable in braces, such as OmegaConf's ${oc.env:HOME}; a command may have some."""
    if (found := VARIABLE.search(value)) and not is_command(value):
        typed = VARIABLE.sub(lambda variable: f"${variable[1]}", value)
        raise InputError(
            f"{where} is {value!r:.200}: nothing fills in {found[0]:.100}; write it out, or let the shell do it: "
            f'--{name:.100} "{typed:.200}"'
        )


def setting(content: Mapping[str, Any], name: str) -> Any:
    """Return a setting of a group, such as margin.name, whether nested or named with a dot; None where it is not."""
    group, _, last = name.partition(".")
    nested = content.get(group)
    return content.get(name, nested.get(last) if isinstance(nested, Mapping) else None)


def named_values(content: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (name with dots, value) of everything below `content` that has a name, and of the values of lists."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield f"{name}.{key}".lstrip("."), value
            yield from named_values(value, f"{name}.{key}".lstrip("."))
    elif isinstance(content, list):
        for value in content:
            yield name, value
            yield from named_values(value, name)


def _group(kind: type, content: Any, path: Path, name: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        what = f"{name} is {content!r:.60}" if name else f"it holds {content!r:.60}"
        example = f"{name or 'data'}: {{{next(iter(get_type_hints(kind)))}: ...}}"
        raise InputError(f"{path}: {what}; give settings with their names, such as {example}")
    hints = get_type_hints(kind)
    for key, value in content.items():
        first, _, rest = str(key).partition(".")
        full = f"{name}.{first}".lstrip(".")
        if first == "config":
            raise InputError(f"{path}: a configuration cannot open another; give --config several times instead")
        if is_dataclass(hints.get(first)):
            _group(hints[first], {rest: value} if rest else value, path, full)
    return dict(content)
