"""`marginface align`: photographs with five points a face to aligned faces."""

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from marginface.align import align_faces, main_face, read_names, write_sheet
from marginface.commands.numbers import Pixels
from marginface.commands.progress import progress_bar
from marginface.commands.shared import add_allow_outside, add_overwrite, print_sentence
from marginface.detection import open_detector
from marginface.faces.template import TEMPLATES
from marginface.files import check_file
from marginface.readers import open_reader
from marginface.readers.image_walk import describe_left_out
from marginface.terminal import print_line

DETECTORS = "mtcnn, dlib, scrfd:FILE.onnx, yunet:FILE.onnx, or auto for the first that is installed"


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=str,
        help="a list of photographs with five points each, such as lfw_landmark.txt; or any data set",
    )
    parser.add_argument("folder", type=str, help="where the aligned faces go, a folder a person")
    parser.add_argument("--size", type=Pixels, default=112, help="height of the faces in pixels")
    parser.add_argument("--template", choices=TEMPLATES, default="arcface", help="where the five points belong")
    parser.add_argument("--detector", type=str, help=f"finds the points of photographs without: {DETECTORS}")
    parser.add_argument("--people", type=str, default="", help="only the people named in this file, one a line")
    add_allow_outside(parser)
    parser.add_argument("--sheet", type=str, help="PNG to look at: the first and the most suspicious faces")
    add_overwrite(parser)


def run(options: Namespace, command: str) -> None:
    if options.sheet:
        check_file(options.sheet, options.overwrite, [options.source])
    people = read_names(options.people) if options.people else None
    detect = None
    if options.detector:
        detect = main_face(open_detector("" if options.detector == "auto" else options.detector))
    with progress_bar("aligning", "go on with the same command") as progress:
        reader = open_reader(options.source, options.allow_outside)
        print_sentence(describe_left_out(options.source, reader))
        done = align_faces(reader, options.folder, options.size, people, progress, options.template, detect)
    refused = f", {len(done.refused)} left out" if done.refused else ""
    words = f"{done.written} faces in {options.folder}, {done.kept} were there already{refused}"
    print_line(words)
    for key, reason in done.refused.items():
        print_line(f"left out: {key}: {reason}", Console(stderr=True))
    if options.sheet and done.fits:
        write_sheet(options.sheet, options.folder, done, options.overwrite)
        print_line(f"look at {options.sheet}")
