"""Where a run stands, told from its files alone: another process may be training it. For `marginface status`."""

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from marginface.errors import InputError
from marginface.evaluate.measure import FIGURES
from marginface.training.monitor import read_metrics
from marginface.training.run import Run, open_run
from marginface.untrusted import read_json, read_yaml
from marginface.weights.state import list_states

if sys.platform != "win32":
    import fcntl

ENDINGS = tuple(f"_{name.replace(' ', '_')}" for name in FIGURES)
State = Literal["running", "stopped", "finished"]
Row = dict[str, float]


@dataclass(frozen=True)
class Status:
    """seconds_left: None unless it is running. best: the highest mean accuracy so far, and where; None without one.

    The ages are in seconds; None where there is nothing yet. `stopped` may be resumed.
    """

    run: str
    state: State
    step: int
    total_steps: int | None
    epoch: float
    epochs: float
    loss: float | None
    images_per_second: float | None
    seconds_left: float | None
    last_word_age: float | None
    best_accuracy: float | None
    best_step: int | None
    checkpoint_step: int | None
    checkpoint_age: float | None


def read_status(folder: str) -> Status:
    """Reads and writes nothing but a shared lock for an instant. Raises InputError where `folder` is no run."""
    run = open_run(folder)
    state, rows, word = _state(run), _rows(run.metrics_csv), _word(run.progress)
    logged = [row for row in rows if "loss" in row]
    last = logged[-1] if logged else {}
    best = max(((mean, row["step"]) for row in rows if (mean := _accuracy(row)) is not None), default=None)
    checkpoint = next(iter(list_states(run.checkpoints)), None)
    step, total, speed = int(last.get("step", 0)), word.get("total_steps"), word.get("steps_per_second", 0.0)
    left = (total - step) / speed if state == "running" and total is not None and speed > 0 else None
    return Status(
        run=folder,
        state=state,
        step=step,
        total_steps=None if total is None else int(total),
        epoch=last.get("epoch", 0.0),
        epochs=_epochs(run.config),
        loss=last.get("loss"),
        images_per_second=last.get("images_per_second"),
        seconds_left=left,
        last_word_age=_age(run.progress),
        best_accuracy=best[0] if best else None,
        best_step=int(best[1]) if best else None,
        checkpoint_step=int(checkpoint.name.rpartition("-")[2]) if checkpoint else None,
        checkpoint_age=_age(checkpoint) if checkpoint else None,
    )


def _state(run: Run) -> State:
    if _is_locked(run.config):
        return "running"
    return "finished" if run.model.is_dir() else "stopped"


def _is_locked(path: Path) -> bool:
    """Whether a process trains this run: it holds a lock as long as it lives."""
    if sys.platform == "win32":
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False


def _rows(path: Path) -> list[Row]:
    """metrics.csv as numbers, without empty fields."""
    rows = read_metrics(path) if path.is_file() else []
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def _accuracy(row: Row) -> float | None:
    """The mean of the benchmarks' figures."""
    values = [value for name, value in row.items() if name.endswith(ENDINGS)]
    return math.fsum(values) / len(values) if values else None


def _word(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    try:
        word = {str(key): float(value) for key, value in read_json(path).items()}
        if not all(map(math.isfinite, word.values())):
            raise ValueError("not all of its numbers are finite")
        return word
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} does not tell how far the run is ({error}); copy it again") from error


def _epochs(config: Path) -> float:
    try:
        return float(read_yaml(config)["train"]["epochs"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{config} does not tell train.epochs ({error!r:.200}); copy it again") from error


def _age(path: Path) -> float | None:
    """Seconds since it was written; 0 where clocks disagree."""
    return max(0.0, time.time() - path.stat().st_mtime) if path.exists() else None
