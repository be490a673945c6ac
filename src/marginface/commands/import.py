"""`marginface import`: a published checkpoint to a model's folder, known by its keys."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table
from rich.text import Text

from marginface.backbones.size import measure
from marginface.commands.shared import add_overwrite
from marginface.files import check_folder
from marginface.terminal import open_console, print_line
from marginface.weights import SOURCES, ImportedModel, import_checkpoint, save_imported, to_embedder
from marginface.weights.opening import conventions


def options(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="file with the weights: .pth, .pt, .ckpt or .safetensors")
    parser.add_argument("-o", "--output", type=str, default="", help="folder to write; without it, only a look")
    parser.add_argument("--source", type=str, default="auto", help=f"whose it is: auto, or {', '.join(SOURCES)}")
    parser.add_argument("--head", type=str, nargs="+", default=[], help="file with the class weights, or its shards")
    parser.add_argument("--part", type=str, default="", help="which network of a file that holds several, such as ema")
    parser.add_argument("--allow-partial", action="store_true", help="keep fresh weights where the file's do not fit")
    add_overwrite(parser)


def run(options: Namespace, command: str) -> None:
    if options.output:
        check_folder(options.output, options.overwrite, [options.checkpoint, *options.head])
    model = import_checkpoint(
        options.checkpoint, options.source, options.head or None, options.allow_partial, options.part
    )
    name, console = Path(options.checkpoint).name, open_console()
    if options.output:
        embedder = save_imported(model, options.output, name, options.overwrite)
    else:
        embedder = to_embedder(model, name)
    described = conventions(embedder)
    console.print(_table(model, described))
    for note in model.notes:
        print_line(f"- {note}", console)
    if model.partial:
        print_line("fresh weights where the file's do not fit:", console)
        print_line(model.partial, console)
    if options.output:
        print_line(f"written to {options.output}", console)


def _table(model: ImportedModel, described: dict[str, str]) -> Table:
    size = measure(model.backbone, model.num_features, **model.options)
    head = "none in the file" if model.head is None else f"of {len(model.head):,} classes, kept for fine-tuning"
    rows = {
        "source": model.source,
        "backbone": f"{model.backbone}{', squeeze-and-excitation' if model.options.get('se') else ''}",
        "embedding": f"{model.num_features} numbers",
        "size": f"{size.parameters / 1e6:.2f} M parameters, {size.macs / 1e9:.2f} G multiply-adds",
        **described,
        "class weights": head,
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    for row in rows.items():
        table.add_row(*map(Text, row))
    return table
