"""What a person sees of a running training: the progress bar, metrics.csv, TensorBoard and other loggers."""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from marginface.errors import InputError
from marginface.filenames import as_text
from marginface.files import naming, replace_file
from marginface.processes import together
from marginface.softmax import MarginSoftmax
from marginface.terminal import print_line
from marginface.training.config import Config
from marginface.training.loggers import create_loggers
from marginface.training.measures import head_columns, margin_state, memory, target_column
from marginface.training.run import Run
from marginface.training.tracing import Trace
from marginface.untrusted import read_lines

COLUMNS = ["step", "epoch", "loss", "lr", "images_per_second", "data_wait", "memory", "gradient_norm"]


class Figure(NamedTuple):
    """What is followed of a benchmark; name: one of `evaluate.measure.FIGURES`."""

    benchmark: str
    name: str

    @property
    def column(self) -> str:
        """In metrics.csv."""
        return f"{as_text(self.benchmark)}_{self.name.replace(' ', '_')}"


class Monitor:
    """Shows and records one run. Of several processes only the first is `active`; the others keep silent."""

    def __init__(
        self,
        run: Run,
        config: Config,
        head: MarginSoftmax,
        *,
        total: int,
        start: int,
        figures: Sequence[Figure],
        console: Console,
        active: bool = True,
    ) -> None:
        """total, start: steps of the run, and those done before. figures: what an evaluation measures."""
        self.console, self.total, self.run = console, total, run
        self._active, self._device = active, head.weight.device
        self._target = target_column(head.margin)
        self._trace: Trace | None = None
        if active:
            columns = [*COLUMNS, *head_columns(head.margin), *(f"margin_{name}" for name in margin_state(head.margin))]
            columns += [figure.column for figure in figures]
            self._csv = MetricsFile(run.metrics_csv, columns, start)
            self._loggers = create_loggers(config.train.logger, run.folder, asdict(config))
            if config.train.profile and start < total:
                self._trace = Trace(run.trace, config.train.profile, total - start)
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
        if self._trace:
            self._trace.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._progress.stop()
        if self._trace:
            self._trace.stop()
        if self._active:
            for logger in self._loggers:
                logger.finalize("failed" if kind else "success")

    def waited(self, seconds: float) -> None:
        """The training step had to wait this long for its batch."""
        self._clock.waited += seconds

    def advance(self, step: int, images: int) -> None:
        self._clock.images += images
        self._clock.steps += 1
        self._progress.update(self._task, completed=step)
        if self._trace:
            self._trace.step()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A row of the training's own numbers; the rate is that since the last row. Every process must call it.

        Of waiting and memory the row has the most of any process: the others wait for that one.
        """
        rates = self._clock.lap()
        waited, used = map(max, zip(*together(lambda: (rates.waited, memory(self._device))), strict=True))
        if not self._active:
            return
        values = {**values, "images_per_second": rates.images, "data_wait": waited, "memory": used}
        self._write(step, values)
        self._leave_word(step, rates)
        target = "cos" if self._target == "target_cosine" else "logit"
        text = (
            f"loss {values['loss']:.3f}  lr {values['lr']:.4f}  {target} {values.get(self._target, 0.0):.3f}  "
            f"norm {values.get('norm', 0.0):.1f}  {rates.images:.0f} images/s"
        )
        self._progress.update(self._task, text=text)
        if self._lines:
            minutes = (self.total - step) / max(rates.steps, 1e-9) / 60
            print_line(f"step {step}/{self.total}  {text}  {minutes:.1f} min left", self.console)

    def evaluated(self, step: int, values: Mapping[Figure, float]) -> None:
        """A row with the figure of each benchmark."""
        if not values:
            return
        self._write(step, {figure.column: value for figure, value in values.items()})
        for name in dict.fromkeys(figure.name for figure in values):
            shown = "  ".join(f"{one.benchmark} {value:.4f}" for one, value in values.items() if one.name == name)
            print_line(f"step {step}/{self.total}  {name} on unseen people: {shown}", self.console)
        self._clock.restart()

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        self._csv.write(step, values)
        for logger in self._loggers:
            logger.log_metrics(dict(values), step)

    def _leave_word(self, step: int, rates: "Rates") -> None:
        """For `marginface status`, in another terminal."""
        word = {"step": step, "total_steps": self.total, "steps_per_second": rates.steps}
        with replace_file(self.run.progress, durable=False) as temporary:
            temporary.write_text(json.dumps(word) + "\n", encoding="utf-8")


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
        with naming(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            row = {name: f"{value:.6g}" for name, value in values.items()}
            csv.DictWriter(file, self.columns).writerow({"step": step, **row})


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv, values as text, empty where a row has none; a last one half written is left out.

    Raises InputError where something else than numbers stands in it.
    """
    try:
        lines = list(read_lines(path, newline=""))
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        rows = list(csv.DictReader(lines))
        for row in rows:
            if not 0 <= int(row["step"]) < 1 << 53:
                raise ValueError(f"there is no step {row['step']}")
            for value in filter(None, row.values()):
                float(value)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path} is damaged ({reason:.100}): delete it, and the run goes on without these rows"
        ) from error
    return rows
