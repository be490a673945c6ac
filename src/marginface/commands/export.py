"""`marginface export`: a model for other runtimes, compared with the original before it is written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from marginface.commands.numbers import Count, Percent
from marginface.commands.progress import Report, progress_bars
from marginface.commands.shared import add_allow_outside, add_overwrite, load_model, notice_alignment
from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate import measure, open_benchmark
from marginface.export import FORMATS, Int8, export
from marginface.export import Report as Exported
from marginface.files import check_file, check_folder
from marginface.loading.alignment import read_alignment
from marginface.loading.decode import decode_batch
from marginface.readers import open_reader
from marginface.terminal import open_console, print_line
from marginface.weights.figures import find_figures, read_figures

ALSO_CALLED = {"torchscript-free-pt2": "pt2"}


def options(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="folder of a model or a run, a checkpoint, or org/name on the Hub")
    parser.add_argument("--to", choices=[*FORMATS, *ALSO_CALLED], required=True, help="what to write")
    parser.add_argument("-o", "--output", type=str, required=True, help="file to write; for openvino a folder")
    parser.add_argument("--pixels", type=bool | None, default=None, help="take RGB 0..255 and normalise in the graph")
    parser.add_argument("--unit", type=bool, default=False, help="normalise the embeddings in the graph")
    parser.add_argument("--evaluation", type=str, default="", help="JSON of marginface evaluate, for the thresholds")
    parser.add_argument("--int8", type=str, default="", help="set of faces to calibrate with: makes int8 of it")
    parser.add_argument("--faces", type=Count, default=256, help="how many of them")
    parser.add_argument("--benchmark", type=str, default="", help="pairs that int8 is judged on, as for evaluate")
    parser.add_argument("--max_drop", type=Percent, default=0.2, help="points of accuracy that int8 may cost")
    add_allow_outside(parser)
    add_overwrite(parser)


def run(options: Namespace, command: str) -> None:
    to = ALSO_CALLED.get(options.to, options.to)
    reads = [options.model, options.evaluation, options.int8, options.benchmark]
    (check_folder if to == "openvino" else check_file)(options.output, options.overwrite, reads)
    model = load_model(options.model).to("cpu")
    results = read_figures(options.evaluation) if options.evaluation else find_figures(options.model)
    with progress_bars("nothing was written; the same command begins anew") as begin:
        report = export(
            model,
            options.output,
            to,
            pixels=options.pixels,
            unit=options.unit,
            name=Path(options.model).name,
            results=results,
            int8=_int8(options, model, begin) if options.int8 else None,
            overwrite=options.overwrite,
            reads=reads,
        )
    _print(open_console(), model, report, options.output)


def _int8(options: Namespace, model: Embedder, begin: Callable[[str], Report]) -> Int8:
    if not options.benchmark:
        raise InputError("--int8 is judged on a benchmark: give --benchmark, such as pairs:FOLDER or lfw.bin")
    benchmark = open_benchmark(options.benchmark, allow_outside=options.allow_outside)
    notice_alignment(benchmark.name, benchmark.images.alignment, model)
    notice_alignment(options.int8, read_alignment(options.int8, options.allow_outside), model)
    reader = open_reader(options.int8, options.allow_outside)
    rows = np.linspace(0, len(reader) - 1, min(options.faces, len(reader))).astype(int)
    size = max(model.preprocessing.image_size)
    images, failures = decode_batch(reader.read(rows.tolist()), size, resize=True, threads=2)
    faces = np.delete(images, list(failures), axis=0)
    if not len(faces):
        raise InputError(f"{options.int8}: none of its images can be read; give a set of aligned faces")

    def accuracy(tried: Embedder, progress: Report) -> float:
        return measure(benchmark, tried, replicates=0, progress=progress).accuracy.mean

    return Int8(faces, accuracy, options.max_drop, begin)


def _print(console: Console, model: Embedder, report: Exported, output: str) -> None:
    table = Table("compared on", "images", "largest difference", "smallest cosine", box=None, pad_edge=False)
    for row in report.parity:
        table.add_row(row.images, str(row.count), f"{row.difference:.1e}", f"{row.cosine:.7f}")
    console.print(table)
    if report.accuracies:
        before, after = report.accuracies
        print_line(f"accuracy {before:.2f} % in float32, {after:.2f} % in int8", console)
    described = report.interface.describe(model)
    print_line(f"{output}: {described['input']} -> {described['output']}", console)
