"""`marginface backbones`: every network."""

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from marginface.backbones import list_backbones


def options(parser: ArgumentParser) -> None:
    """A command without options."""


def run(options: Namespace, command: str) -> None:
    Console().print("\n".join(list_backbones()), highlight=False)
