"""The words behind `marginface train`, completed before the parser reads them. For its command."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from marginface.backbones import BACKBONES, backbone_options
from marginface.training.config import Config
from marginface.training.config_file import named_values, setting
from marginface.untrusted import parse_yaml

OWNERS = {"margin.options": "margin.name", "model.options": "model.backbone"}
"""Options that mean something only to what the other setting names."""


def joined(words: Sequence[str]) -> list[str]:
    """Write `--config FILE` as one word, and a list's values with brackets: `--data.val a.bin b.bin`."""
    lists = dict(_lists(Config, ""))
    written: list[str] = []
    rest = list(words)
    while rest:
        name, equals, value = (word := rest.pop(0)).partition("=")
        kind = lists.get(name[2:])
        if name == "--config" and not equals and rest:
            word = f"--config={rest.pop(0)}"
        elif kind is not None:
            values = [value] if equals else []
            while not equals and rest and not rest[0].startswith(("--", "@")):
                values.append(rest.pop(0))
            bare = values and not values[0].startswith("[")
            if values:
                word = f"{name}={_list(values, kind) if bare else ' '.join(values)}"
        written.append(word)
    return written


def replaced_options(words: Sequence[str], configs: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for every option before a `--config` that replaces it by another value.

    words: as `joined` returns them. configs: what the configuration at a position of `words` holds.
    """
    for position, content in configs.items():
        held = dict(reversed([*named_values(content, "")]))  # of a list the whole, which comes before its values
        for place, word in enumerate(words[:position]):
            option, equals, value = word.partition("=")
            name, value = option[2:], value if equals else words[place + 1]
            if option.startswith("--") and name in held and value != str(held[name]) and _plain(value) != held[name]:
                file = words[position].partition("=")[2]
                yield (
                    f"--{name} {value:.200} has no effect: --config {file} follows, with {held[name]!s:.200}; "
                    "put --config first"
                )


def without_stale_options(
    words: Sequence[str], configs: Mapping[int, Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Drop the options that a configuration gives to a margin or backbone which later words replace by another.

    configs: what the configuration at a position of `words` holds.
    Returns the words and a sentence for every group of options dropped. Options given as words stay.
    A backbone keeps the options of the one before if it has all of them, as iresnet100 those of iresnet50.
    """
    after: dict[int, list[str]] = {}
    sentences = []
    for options, owner in OWNERS.items():
        group, _, field = owner.partition(".")
        default = str(getattr(getattr(Config(), group), field))
        named = [(-1, default), *_named(words, configs, owner)]
        name = named[-1][1]
        whole = [position for position, word in enumerate(words) if word.partition("=")[0] == f"--{options}"]
        whole += [position for position, content in configs.items() if setting(content, options)]
        for position, content in configs.items():
            given = setting(content, options)
            before = [one for place, one in named if place <= position][-1]
            replaced = any(place > position for place in whole)
            if not isinstance(given, Mapping) or not given or before == name or replaced or _fit(owner, name, given):
                continue
            after.setdefault(position, []).append(f"--{options}={{}}")
            listed = ", ".join(map(str, given))
            sentences.append(f"{options} of {before} are left out ({listed}): {name} has its own defaults")
    return [one for position, word in enumerate(words) for one in (word, *after.get(position, ()))], sentences


def _list(values: Sequence[str], kind: type) -> str:
    return json.dumps(values) if kind is str else f"[{','.join(values)}]"


def _lists(kind: type, prefix: str) -> Iterator[tuple[str, type]]:
    """(setting, type of its values) of all that are lists."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint) and isinstance(hint, type):
            yield from _lists(hint, f"{prefix}{name}.")
        elif get_origin(hint) is list:
            yield f"{prefix}{name}", get_args(hint)[0]


def _named(words: Sequence[str], configs: Mapping[int, Mapping[str, Any]], owner: str) -> Iterator[tuple[int, str]]:
    """(position, name) wherever the owner is named, in a configuration or by words."""
    group = f"--{owner.partition('.')[0]}"
    for position, word in enumerate(words):
        key, equals, value = word.partition("=")
        value = value if equals else "".join(words[position + 1 : position + 2])
        found: Any = None
        if position in configs:
            found = setting(configs[position], owner)
        elif key == f"--{owner}":
            found = value
        elif key == group:
            found = setting({group[2:]: parse_yaml(value)}, owner)
        if isinstance(found, str):
            yield position, found


def _fit(owner: str, name: str, options: Mapping[str, Any]) -> bool:
    return owner == "model.backbone" and name in BACKBONES and options.keys() <= set(backbone_options(name))


def _plain(value: str) -> Any:
    try:
        return parse_yaml(value)
    except (ValueError, TypeError):
        return value
