"""`marginface backbones`: every network with its size and, on request, its speed here."""

import time

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from marginface.backbones import create_backbone, list_backbones
from marginface.backbones.size import measure
from marginface.commands.progress import progress_bars
from marginface.terminal import open_console, print_line

SECONDS = 0.5  # of measuring a network, at least one batch
BATCH = 8


def options(parser: ArgumentParser) -> None:
    parser.add_argument("names", type=str, nargs="*", default=[], help="only these; timm:NAME is understood too")
    parser.add_argument("--speed", action="store_true", help="time them here too: a second each or more")


def run(options: Namespace, command: str) -> None:
    names = options.names or list_backbones()
    sizes = {name: measure(name) for name in names}
    speeds = _speeds(names) if options.speed else {}
    table = Table(box=None, pad_edge=False)
    table.add_column("backbone", no_wrap=True)
    for column in ["M parameters", "G MACs", "input", "output"] + ["images/s here"] * options.speed:
        table.add_column(column, justify="right", no_wrap=True)
    for name, size in sizes.items():
        height, width = size.image_size
        cells = [name, f"{size.parameters / 1e6:.2f}", f"{size.macs / 1e9:.2f}", f"{height}x{width}"]
        cells.append(str(size.num_features))
        table.add_row(*cells, *([f"{speeds[name]:.1f}"] if options.speed else []))
    console = open_console()
    console.print(table)
    what = f", {BATCH} at once, {torch.get_num_threads()} threads, plain float32" if options.speed else ""
    print_line(f"without class weights; any timm:NAME works too{what}", console, style="dim")


def _speeds(names: list[str]) -> dict[str, float]:
    with progress_bars("marginface backbones without --speed tells the sizes at once") as begin:
        report, speeds = begin("images/s"), {}
        for done, name in enumerate(names):
            report(done, len(names))
            speeds[name] = speed(name)
        report(len(names), len(names))
    return speeds


@torch.no_grad()
def speed(name: str) -> float:
    """Images a second through the network as it is; its weights are all alike, which takes no time to draw."""
    with torch.device("meta"):
        backbone = create_backbone(name).eval()
    backbone = backbone.to_empty(device="cpu")
    for tensor in (*backbone.parameters(), *backbone.buffers()):
        tensor.fill_(1)
    images = torch.zeros(BATCH, 3, *backbone.image_size).to(memory_format=torch.channels_last)
    backbone(images[:1])
    rounds, start = 0, time.perf_counter()
    while rounds == 0 or time.perf_counter() - start < SECONDS:
        backbone(images)
        rounds += 1
    return rounds * BATCH / (time.perf_counter() - start)
