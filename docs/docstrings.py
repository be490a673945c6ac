"""In the reference, what a docstring says as `name: ...` of its parameters and fields becomes a list. For griffe."""

import re
from typing import Any

import griffe


class NamedParts(griffe.Extension):
    """Our docstrings name parts in plain lines, which Markdown would run together."""

    def on_function_instance(self, *, func: griffe.Function, **rest: Any) -> None:
        """Called by griffe for every function, before docstrings are read."""
        list_parts(func, [parameter.name.strip("*") for parameter in func.parameters])

    def on_class_members(self, *, cls: griffe.Class, **rest: Any) -> None:
        """Called by griffe for every class, when its fields are known."""
        list_parts(cls, list(cls.members))


def list_parts(obj: griffe.Object, names: list[str]) -> None:
    """Changes the docstring of `obj`, whose parts may be called `names`."""
    if obj.docstring:
        obj.docstring.value = listed(obj.docstring.value, names)


def listed(text: str, names: list[str]) -> str:
    """`text` with the parts of paragraphs that begin with `name: ` as list items."""
    if not names:
        return text
    name = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    part = re.compile(rf"(?:^|(?<=[.;]) |\n)((?:{name})(?:, (?:{name}))*): ")
    paragraphs = [
        part.sub(r"\n- **\1**: ", paragraph).strip().replace("\nRaises ", "\n\nRaises ")
        if part.match(paragraph)
        else paragraph
        for paragraph in text.split("\n\n")
    ]
    return "\n\n".join(paragraphs)
