"""`marginface inspect`: what is in a data set, what is wrong with it, and a list of what is not."""

import json

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.numbers import Threads
from marginface.commands.progress import progress_bar
from marginface.commands.shared import add_allow_outside, add_overwrite, load_model, notice_alignment, print_sentence
from marginface.files import check_files, create_file
from marginface.inspect import inspect, print_findings, write_page
from marginface.loading.alignment import read_alignment
from marginface.readers.image_walk import describe_left_out
from marginface.terminal import open_console, print_line


def options(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=str, help="a data set of any format, recognised by its content")
    parser.add_argument("--benchmark", type=str, nargs="+", default=[], help="sets that must share nothing with it")
    parser.add_argument("--model", type=str, help="folder of a model or a run: also finds odd images and wrong names")
    parser.add_argument("--json", type=str, help="file to write all findings to")
    parser.add_argument("--html", type=str, help="file to write a page with pictures to")
    parser.add_argument("--write-clean", type=str, help="file for the keys without fault: `convert --subset` reads it")
    parser.add_argument("--workers", type=Threads, default=2, help="threads that decode")
    add_allow_outside(parser)
    add_overwrite(parser)


def run(options: Namespace, command: str) -> None:
    console = open_console()
    reads = [options.path, *options.benchmark, *([options.model] if options.model else [])]
    check_files(
        [options.json, options.html, options.write_clean],
        options.overwrite,
        reads,
        within=[options.path, *options.benchmark],
    )
    model = load_model(options.model) if options.model else None
    if model:
        notice_alignment(options.path, read_alignment(options.path, options.allow_outside), model)
    with progress_bar("inspecting", "nothing was written") as progress:
        words = options.path, options.benchmark, model, options.workers
        findings, reader = inspect(*words, progress, options.allow_outside)
    print_findings(findings, console)
    print_sentence(describe_left_out(options.path, reader))
    if options.json:
        with create_file(options.json, options.overwrite) as temporary:
            temporary.write_text(json.dumps(findings.to_dict(), indent=1), encoding="utf-8", errors="surrogateescape")
    if options.html:
        write_page(options.html, findings, reader, options.overwrite)
    if options.write_clean:
        count = findings.write_clean(options.write_clean, options.overwrite)
        print_line(f"{count:,} keys in {options.write_clean}", console)
