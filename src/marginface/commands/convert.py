"""`marginface convert`: any data set to any format that is written, bytes unchanged."""

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.numbers import Count, Threads
from marginface.commands.progress import progress_bar
from marginface.commands.shared import add_allow_outside, print_sentence
from marginface.convert import TARGETS, Selection, convert, convert_pairs
from marginface.errors import InputError
from marginface.terminal import open_console, print_line


def options(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=str, help="a data set of any format, recognised by its content")
    parser.add_argument("destination", type=str, help="a new folder; with --to bin a new file")
    parser.add_argument("--to", choices=TARGETS, default="recordio", help="the format to write")
    parser.add_argument("--subset", type=str, help="file of keys, one a line, or AdaFace's numbers and commas")
    parser.add_argument("--min-images", type=Count, default=1, help="leave out people with fewer images")
    parser.add_argument("--identities", type=Count, help="only the first so many people")
    parser.add_argument("--limit-per-identity", type=Count, help="only the first so many images of each")
    parser.add_argument("--pairs", type=str, help="with --to bin: the pairs.txt that says what is compared")
    parser.add_argument("--workers", type=Threads, default=2, help="threads that read")
    add_allow_outside(parser)


def run(options: Namespace, command: str) -> None:
    selection = Selection(options.subset, options.min_images, options.identities, options.limit_per_identity)
    console = open_console()
    if options.to == "bin":
        if selection != Selection():
            raise InputError("--to bin: a selection of images is for the other formats; give --pairs instead.")
        count = convert_pairs(options.source, options.destination, options.pairs, options.allow_outside)
        print_line(f"{count:,} pairs in {options.destination}", console)
        return
    if options.pairs:
        raise InputError(f"--pairs: is for --to bin, not for --to {options.to}.")
    with progress_bar("converting", "go on with the same command") as progress:
        words = options.source, options.destination, options.to, selection, options.workers
        count = convert(*words, progress, options.allow_outside, print_sentence)
    print_line(f"{count:,} images in {options.destination}", console)
