"""States of a run on their way to the disk: at once, or while the next steps are computed. For the training loop."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from marginface.errors import InputError, Stopped
from marginface.processes import by_first, rank_and_size
from marginface.weights.parts import Part
from marginface.weights.state import forget_states, write_state

GRACE = 5.0  # seconds for the write under way, when the run ends for a reason that may keep it from ever being done


class Saver:
    """Writes states of which the last `keep` stay, one at a time. Every process has one and calls the same of it.

    aside: a thread writes a copy in the host's memory while the training goes on; room for the copy is made once.
    What the processes agree upon meanwhile goes through a group of its own, or it would come between the messages of
    the step. timeout: seconds, of that group. As a context, its end waits for the write that is under way.
    """

    def __init__(self, keep: int, aside: bool, timeout: float) -> None:
        self.keep, self.aside = keep, aside
        self._group: dist.ProcessGroup | None = None
        if aside and rank_and_size()[1] > 1:
            group = dist.new_group(timeout=timedelta(seconds=timeout), backend="gloo")
            self._group = cast(dist.ProcessGroup, group)
        self._room: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether `wait` would raise at once."""
        return self._error is not None

    def save(self, folder: Path, tensors: Mapping[str, Tensor | Part], facts: dict[str, Any]) -> None:
        """As `write_state`. With `aside` it returns when the tensors may change; what went wrong is raised by `wait`.

        A save that is under way is waited for. facts: with the "step" that the folder is named after.
        """
        self.wait()
        if not self.aside:
            self._write(folder, tensors, facts)
            return
        given = (folder, self._copied(tensors), facts)
        # a daemon: a process that gives up does not wait for one that is gone
        self._thread = threading.Thread(target=self._try, args=given, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the state under way is on the disk. Raises what went wrong: InputError, the same on all processes."""
        self._join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        else:
            self._join(None if issubclass(kind, InputError | Stopped) else GRACE)

    def _join(self, seconds: float | None = None) -> None:
        if self._thread is not None:
            self._thread.join(seconds)
            self._thread = None

    def _try(self, folder: Path, tensors: Mapping[str, Tensor | Part], facts: dict[str, Any]) -> None:
        try:
            self._write(folder, tensors, facts)
        except BaseException as error:  # whatever it is, the training must hear of it
            self._error = error

    def _write(self, folder: Path, tensors: Mapping[str, Tensor | Part], facts: dict[str, Any]) -> None:
        write_state(folder, tensors, facts, self._group)
        by_first(lambda: forget_states(folder.parent, facts["step"], self.keep), self._group)

    @torch.no_grad()
    def _copied(self, tensors: Mapping[str, Tensor | Part]) -> dict[str, Tensor | Part]:
        """In the host's memory, all of it there when this returns."""
        copies: dict[str, Tensor | Part] = {}
        devices = set()
        for name, value in tensors.items():
            rows = value.rows if isinstance(value, Part) else value
            if name not in self._room:
                self._room[name] = torch.empty_like(rows, device="cpu", pin_memory=rows.is_cuda)
            copy = self._room[name].copy_(rows, non_blocking=True)
            copies[name] = replace(value, rows=copy) if isinstance(value, Part) else copy
            devices.add(rows.device)
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return copies
