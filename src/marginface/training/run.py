"""The folder of a run: made once, never overwritten, and what lies where in it."""

from dataclasses import dataclass
from pathlib import Path

from marginface.errors import InputError


@dataclass(frozen=True)
class Run:
    """runs/<name>: every path a run writes to."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def metrics_csv(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def metrics_json(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def samples(self) -> Path:
        return self.folder / "samples.png"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best"

    @property
    def start(self) -> Path:
        """The model that fine-tuning began with."""
        return self.folder / "checkpoints" / "start"

    def model_of(self, step: int) -> Path:
        """The model as it was at a step, where every evaluated one is kept."""
        return self.folder / "checkpoints" / f"step-{step}"

    def last(self, rank: int = 0, world_size: int = 1) -> Path:
        """Where a process keeps its state; each has classes of its own, so several processes have a file each."""
        name = "last.pt" if world_size == 1 else f"last-{rank + 1}-of-{world_size}.pt"
        return self.folder / "checkpoints" / name


def create_run(output: str, name: str, numbered: bool) -> Run:
    """Makes output/name, or with `numbered` the first free of name, name-2, name-3 ...

    Raises InputError when the folder exists: earlier runs are never overwritten.
    """
    number = 1
    while True:
        folder = Path(output) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return Run(folder)
        except FileExistsError as error:
            if not numbered:
                raise InputError(
                    f"{folder} exists already: give another --name, or continue it with --resume {folder}"
                ) from error
            number += 1


def open_run(folder: str) -> Run:
    """An existing run. Raises InputError when `folder` is not one."""
    run = Run(Path(folder))
    if not run.config.is_file():
        raise InputError(f"{folder} is not a run: it holds no config.yaml; give a folder such as runs/quickstart")
    return run
