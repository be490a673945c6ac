"""`marginface zoo`: published checkpoints, where they are to be had, and whether a file is one of them."""

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from marginface.errors import InputError
from marginface.terminal import open_console, print_line
from marginface.weights import import_checkpoint
from marginface.weights.zoo import Row, candidates, name_of, rows

WIDTH = 168  # of the table, whatever the terminal
FIGURES = ("LFW", "CFP-FP", "AgeDB-30", "IJB-C")


def options(parser: ArgumentParser) -> None:
    parser.add_argument("which", type=str, nargs="?", default="", help="a row's name, part of a name, or a file")
    parser.add_argument("--source", type=str, default="auto", help="whose the file is, where its keys cannot tell")


def run(options: Namespace, command: str) -> None:
    console = open_console()
    wide = Console(width=max(console.width, WIDTH))
    named = [row for row in rows() if options.which.lower() in f"{row.name} {row.project}".lower()]
    if not options.which:
        _list(wide, named)
    elif named:
        for row in named:
            _show(console, row)
    else:
        _check(console, options.which, options.source)


def _list(console: Console, listed: list[Row]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("name", "backbone", "trained on", *FIGURES, "licence", "data for"):
        table.add_column(column, justify="right" if column in FIGURES else "left", no_wrap=True)
    for row in listed:
        figures = [f"{row.figures[key]:.2f}" if key in row.figures else "" for key in FIGURES]
        allowed = "research only" if "research" in row.data_terms else row.data_terms.partition(" (")[0]
        table.add_row(row.name, row.backbone, row.trained_on, *figures, row.licence, allowed)
    console.print(table)
    print_line("\nthe command that imports it, once it is here, and where it is to be had", console, style="bold")
    commands = [row.command if row.source else f"{row.name}: no importer, {row.why}" for row in listed]
    width = max(map(len, commands))
    for command, row in zip(commands, listed, strict=True):
        print_line(f"{command:{width}}  {row.where}", console)
    print_line(
        "\npercent, as the authors report; IJB-C: TAR at FAR 1e-4. The licence is that of the weights and cannot allow "
        "more than the data they were trained on. marginface zoo NAME says all of one, marginface zoo FILE which a "
        "file is. Nothing is downloaded.",
        console,
        style="dim",
    )


def _show(console: Console, row: Row) -> None:
    figures = ", ".join(f"{key} {value:.2f}" for key, value in row.figures.items()) or "none on its page"
    lines = {
        row.name: f"{row.project}: {row.backbone}, {row.loss}, trained on {row.trained_on}",
        "  licence": row.licence,
        "  training data": f"{row.trained_on}: {row.data_terms}",
        "  where": row.where,
        "  import": row.command,
        "  figures %": figures,
    }
    for key, value in lines.items():
        print_line(f"{key}: {value}", console)


def _check(console: Console, file: str, source: str) -> None:
    try:
        model = import_checkpoint(file, source)
    except InputError as error:
        if "does not exist" in str(error):
            raise InputError(f"{file} is neither a row of the zoo nor a file; marginface zoo lists the rows") from None
        raise
    found = candidates(model)
    head = "" if model.head is None else f", class weights of {len(model.head):,} people"
    print_line(
        f"{file}: {model.source}'s layout, {name_of(model)}, {model.num_features} numbers{head}; every key fits",
        console,
    )
    if not found:
        print_line("No row of the zoo has this network and these people.", console)
    elif len(found) > 1:
        print_line(f"It fits {len(found)} rows, which differ in their numbers only:", console)
    for row in found:
        _show(console, row)
