"""`marginface status`: where a run stands, from another terminal."""

import json
from dataclasses import asdict
from datetime import timedelta

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table
from rich.text import Text

from marginface.terminal import open_console, visible
from marginface.training.status import Status, read_status


def options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="folder of a run, such as runs/quickstart")
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")


def run(options: Namespace, command: str) -> None:
    status = read_status(options.run)
    if options.json:
        print(json.dumps(asdict(status), indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, text in described(status).items():
        table.add_row(name, Text(visible(text)))
    open_console().print(table, highlight=False)


def described(status: Status) -> dict[str, str]:
    """What there is to say, in words."""
    share = f" of {status.total_steps:,} ({status.step / status.total_steps:.0%})" if status.total_steps else ""
    found = {
        "run": f"{status.run}, {status.state}",
        "step": f"{status.step:,}{share}",
        "epoch": f"{status.epoch:.2f} of {status.epochs:g}",
    }
    if status.loss is not None:
        found["loss"] = f"{status.loss:.3f}"
    if status.images_per_second is not None:
        found["images/s"] = f"{status.images_per_second:,.0f}"
    if status.seconds_left is not None:
        found["time left"] = duration(status.seconds_left)
    if status.last_word_age is not None:
        found["last row"] = f"{duration(status.last_word_age)} ago"
    if status.best_accuracy is not None:
        found["best"] = f"accuracy {status.best_accuracy:.4f} at step {status.best_step:,}"
    if status.checkpoint_step is not None and status.checkpoint_age is not None:
        found["checkpoint"] = f"step {status.checkpoint_step:,}, {duration(status.checkpoint_age)} ago"
    if status.state == "stopped":
        found["go on with"] = f"marginface train --resume {status.run}"
    return found


def duration(seconds: float) -> str:
    """Such as 0:04:10 or 2 days, 3:00:00."""
    return str(timedelta(seconds=round(seconds)))
