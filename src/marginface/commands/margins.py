"""`marginface margins`: every margin and its parameters."""

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from marginface.margins import list_margins, margin_parameters
from marginface.terminal import open_console


def options(parser: ArgumentParser) -> None:
    """A command without options."""


def run(options: Namespace, command: str) -> None:
    table = Table("margin", "parameters", title="--margin.name NAME --margin.options.PARAMETER VALUE")
    for name in list_margins():
        table.add_row(name, ", ".join(margin_parameters(name)))
    open_console().print(table)
