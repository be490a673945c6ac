"""`marginface align`: photographs with five points a face to aligned faces."""

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt
from rich.console import Console

from marginface.align import align_faces, read_names, write_sheet
from marginface.commands.progress import progress_bar
from marginface.faces.template import TEMPLATES
from marginface.readers import open_reader


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=str, help="a list of photographs with five points each, such as lfw_landmark.txt"
    )
    parser.add_argument("folder", type=str, help="where the aligned faces go, a folder a person")
    parser.add_argument("--size", type=PositiveInt, default=112, help="height of the faces in pixels")
    parser.add_argument("--template", choices=TEMPLATES, default="arcface", help="where the five points belong")
    parser.add_argument("--people", type=str, default="", help="only the people named in this file, one a line")
    parser.add_argument("--sheet", type=str, help="PNG to look at: the first and the most suspicious faces")


def run(options: Namespace, command: str) -> None:
    people = read_names(options.people) if options.people else None
    with progress_bar("aligning", "go on with the same command") as progress:
        reader = open_reader(options.source)
        done = align_faces(reader, options.folder, options.size, people, progress, options.template)
    Console().print(f"{done.written} faces in {options.folder}, {done.kept} were there already", highlight=False)
    for key, reason in done.refused.items():
        Console(stderr=True).print(f"left out: {key}: {reason}", highlight=False)
    if options.sheet and done.fits:
        write_sheet(options.sheet, options.folder, done)
        Console().print(f"look at {options.sheet}", highlight=False)
