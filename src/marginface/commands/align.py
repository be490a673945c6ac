"""`marginface align`: photographs with five points a face to aligned faces."""

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import Progress

from marginface.align import align_faces, read_names
from marginface.readers import open_reader


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=str, help="a list of photographs with five points each, such as lfw_landmark.txt"
    )
    parser.add_argument("folder", type=str, help="where the aligned faces go, a folder a person")
    parser.add_argument("--size", type=int, default=112, help="side of the square faces in pixels")
    parser.add_argument("--people", type=str, default="", help="only the people named in this file, one a line")


def run(options: Namespace, command: str) -> None:
    people = read_names(options.people) if options.people else None
    with Progress(console=Console()) as bar:
        task = bar.add_task("aligning")
        done = align_faces(
            open_reader(options.source),
            options.folder,
            options.size,
            people,
            lambda count, total: bar.update(task, completed=count, total=total),
        )
    Console().print(f"{done.written} faces in {options.folder}, {done.kept} were there already", highlight=False)
    for key, reason in done.refused.items():
        Console(stderr=True).print(f"left out: {key}: {reason}", highlight=False)
