"""`marginface backbones`: every network with its size, and its speed here where asked for."""

import time

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from marginface.backbones import create_backbone, list_backbones
from marginface.backbones.size import measure

SECONDS = 2.0  # of measuring a network
BATCH = 8


def options(parser: ArgumentParser) -> None:
    parser.add_argument("names", type=str, nargs="*", default=[], help="only these; timm:NAME is understood too")
    parser.add_argument("--speed", action="store_true", help="also measure images/s here: a few seconds each")


def run(options: Namespace, command: str) -> None:
    table, columns = Table(box=None, pad_edge=False), ["M parameters", "G MACs", "input", "output"]
    table.add_column("backbone", no_wrap=True)
    for column in columns + ["images/s here"] * options.speed:
        table.add_column(column, justify="right", no_wrap=True)
    for name in options.names or list_backbones():
        size = measure(name)
        height, width = size.image_size
        cells = [name, f"{size.parameters / 1e6:.2f}", f"{size.macs / 1e9:.2f}", f"{height}x{width}"]
        cells.append(str(size.num_features))
        table.add_row(*cells, *([f"{speed(name):.1f}"] if options.speed else []))
    console = Console()
    console.print(table)
    what = f", {BATCH} at once, {torch.get_num_threads()} threads, plain float32" if options.speed else ""
    console.print(f"without class weights; any timm:NAME works too{what}", style="dim", highlight=False, soft_wrap=True)


@torch.no_grad()
def speed(name: str) -> float:
    """Images a second through the network as it is, fresh weights."""
    backbone = create_backbone(name).eval()
    images = torch.zeros(BATCH, 3, *backbone.image_size).to(memory_format=torch.channels_last)
    backbone(images)
    rounds, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS:
        backbone(images)
        rounds += 1
    return rounds * BATCH / seconds
