"""`marginface recipes`: which published runs are at hand."""

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from marginface.terminal import open_console
from marginface.training.config import recipe_rows


def options(parser: ArgumentParser) -> None:
    """A command without options."""


def run(options: Namespace, command: str) -> None:
    table = Table(title="marginface train --config RECIPE")
    table.add_column("recipe", no_wrap=True)
    table.add_column("data | backbone | margin")
    table.add_column("expect")
    for name, content in recipe_rows():
        table.add_row(name, content["summary"], content["expect"])
    open_console().print(table)
