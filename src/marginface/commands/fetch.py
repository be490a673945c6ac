"""`marginface fetch`: a small public set, after its terms."""

from jsonargparse import ArgumentParser, Namespace

from marginface.fetch import SOURCES, describe, fetch
from marginface.terminal import open_console, print_line


def options(parser: ArgumentParser) -> None:
    parser.add_argument("name", choices=tuple(SOURCES), help="; ".join(f"{k}: {v.about}" for k, v in SOURCES.items()))
    parser.add_argument("destination", type=str, nargs="?", help="a new folder; without one, the set's name")


def run(options: Namespace, command: str) -> None:
    console, source = open_console(), describe(options.name)
    print_line(f"{source.about}\nterms: {source.terms}\ndownload: {source.download}", console)
    destination = options.destination or options.name
    count = fetch(options.name, destination)
    print_line(f"{count:,} images in {destination}", console)
