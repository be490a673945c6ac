"""torch.profiler over some steps of a run: a trace for Perfetto or chrome://tracing. For the monitor."""

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from marginface.files import check_room, replace_file

SETTLE = 5  # steps before, in which memory is found and kernels are chosen


class Trace:
    """Watches `steps` steps once training runs evenly, and writes them to `path`."""

    def __init__(self, path: Path, steps: int, left: int) -> None:
        """left: steps that the run still has."""
        self.path, self.written = path, False
        settle = max(0, min(SETTLE, left - steps - 1))
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(
            activities=activities,
            schedule=schedule(skip_first=settle, wait=0, warmup=1, active=max(1, min(steps, left - 1)), repeat=1),
            on_trace_ready=self._write,
        )

    def start(self) -> None:
        self._profile.start()

    def step(self) -> None:
        """After every step of the training; costs nothing once the trace is written."""
        if not self.written:
            self._profile.step()

    def stop(self) -> None:
        """What was watched of a run that ends early is written too."""
        if not self.written:
            self._profile.stop()

    def _write(self, found: Any) -> None:
        self.written = True
        with replace_file(self.path) as temporary:
            found.export_chrome_trace(str(temporary))
            check_room(temporary)
