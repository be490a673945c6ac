"""What a person sees of a running training: the progress bar, metrics.csv and TensorBoard."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from marginface.files import replace_file

COLUMNS = ["step", "epoch", "loss", "lr", "images_per_second", "data_wait", "target_cosine", "norm"]


class Monitor:
    """Shows and records one run. Of several processes only the first is `active`; the others keep silent."""

    def __init__(
        self, folder: Path, total: int, start: int, benchmarks: list[str], console: Console, active: bool = True
    ) -> None:
        self.console, self.total = console, total
        self._active = active
        if active:
            self._csv = MetricsFile(
                folder / "metrics.csv", [*COLUMNS, *(f"{name}_accuracy" for name in benchmarks)], start
            )
            self._board = TensorBoardLogger(folder, name="tensorboard", version="")
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._task = self._progress.add_task("training", total=total, completed=start, text="")
        self._lines = not console.is_terminal
        self._clock = Clock()

    def __enter__(self) -> "Monitor":
        if self._active and not self._lines:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._active:
            self._board.finalize("success")

    def waited(self, seconds: float) -> None:
        """The training step had to wait this long for its batch."""
        self._clock.waited += seconds

    def advance(self, step: int, images: int) -> None:
        self._clock.images += images
        self._clock.steps += 1
        self._progress.update(self._task, completed=step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A row of the training's own numbers; the rate is that since the last row."""
        rates = self._clock.lap()
        if not self._active:
            return
        values = {**values, "images_per_second": rates.images, "data_wait": rates.waited}
        self._csv.write(step, values)
        self._board.log_metrics(dict(values), step)
        text = (
            f"loss {values['loss']:.3f}  lr {values['lr']:.4f}  cos {values['target_cosine']:.3f}  "
            f"norm {values['norm']:.1f}  {rates.images:.0f} images/s"
        )
        self._progress.update(self._task, text=text)
        if self._lines:
            minutes = (self.total - step) / max(rates.steps, 1e-9) / 60
            self.console.print(f"step {step}/{self.total}  {text}  {minutes:.1f} min left", highlight=False)

    def evaluated(self, step: int, accuracies: Mapping[str, float]) -> None:
        """A row with the accuracy on each benchmark."""
        if not accuracies:
            return
        values = {f"{name}_accuracy": accuracy for name, accuracy in accuracies.items()}
        self._csv.write(step, values)
        self._board.log_metrics(values, step)
        shown = "  ".join(f"{name} {accuracy:.4f}" for name, accuracy in accuracies.items())
        self.console.print(f"step {step}/{self.total}  accuracy on unseen people: {shown}", highlight=False)
        self._clock.restart()


class Rates(NamedTuple):
    """images and steps a second, and the share of the time that the step waited for its data."""

    images: float
    steps: float
    waited: float


class Clock:
    """What happened since the last row."""

    def __init__(self) -> None:
        self.images, self.steps, self.waited, self._since = 0, 0, 0.0, time.perf_counter()

    def lap(self) -> Rates:
        seconds = max(time.perf_counter() - self._since, 1e-9)
        rates = Rates(self.images / seconds, self.steps / seconds, self.waited / seconds)
        self.restart()
        return rates

    def restart(self) -> None:
        """Time spent on something else is not counted."""
        self.images, self.steps, self.waited, self._since = 0, 0, 0.0, time.perf_counter()


class MetricsFile:
    """metrics.csv; on resuming, rows after the step resumed from are dropped, so none appears twice."""

    def __init__(self, path: Path, columns: list[str], start: int) -> None:
        self.path, self.columns = path, columns
        rows = [row for row in read_metrics(path) if int(row["step"]) <= start] if path.is_file() else []
        with replace_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            row = {name: f"{value:.6g}" for name, value in values.items()}
            csv.DictWriter(file, self.columns).writerow({"step": step, **row})


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv, values as text, empty where a row has none."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
