"""The folder of a run: made once, never overwritten, and what lies where in it."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from marginface.errors import InputError
from marginface.filenames import check_file_name
from marginface.files import naming, temporary_folder, umask

if sys.platform != "win32":
    import fcntl


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
    def progress(self) -> Path:
        """How far the run is, for `marginface status`."""
        return self.folder / "progress.json"

    @property
    def trace(self) -> Path:
        """What `train.profile` watched."""
        return self.folder / "trace.json"

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

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def state_of(self, step: int) -> Path:
        """Everything that is needed to go on from a step."""
        return self.checkpoints / f"state-{step}"


def create_run(output: str, name: str, numbered: bool, fill: Callable[[Run], None]) -> Run:
    """Makes output/name, or with `numbered` the first free of name, name-2, name-3 ...; `fill` writes what is in it.

    The folder appears with its content. Raises InputError when it exists and is not empty: earlier runs
    are never overwritten.
    """
    check_file_name(name, "the run's name")
    wanted = Path(output) / name
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with naming(wanted), temporary_folder(wanted) as temporary:
        fill(Run(temporary))
        temporary.chmod(0o777 & ~umask())
        number = 1
        while True:
            folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            if _renamed(temporary, folder):
                return Run(folder)
            if not numbered:
                go_on = f", or continue it with --resume {folder}" if Run(folder).config.is_file() else ""
                raise InputError(f"{folder} exists already: give another --name{go_on}")
            number += 1


def _renamed(temporary: Path, folder: Path) -> bool:
    """Whether `folder` was free, or empty."""
    try:
        temporary.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY):
            return False
        raise
    return True


def open_run(folder: str) -> Run:
    """An existing run. Raises InputError when `folder` is not one, or holds links, which could lead out of it."""
    run = Run(Path(folder))
    if not run.config.is_file():
        raise InputError(f"{folder} is not a run: it holds no config.yaml; give a folder such as runs/quickstart")
    if linked := next((path for path in run.folder.iterdir() if path.is_symlink()), None):
        raise InputError(f"{linked} is a symbolic link, which is not followed in a run; put what it leads to there")
    return run


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Within, the run is this process's: a second one is refused with InputError. Ends with the process, however."""
    with run.config.open("r+b") as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{run.folder} is being trained by another process: wait for it, or give another --name"
                ) from error
            except OSError:  # a file system without locks
                pass
        yield
