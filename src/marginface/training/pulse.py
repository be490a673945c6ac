"""What the host must know of a step, without ever letting the device wait. For the training loop."""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from marginface.processes import rank_and_size


class News(NamedTuple):
    """Of one step, the same on all processes.

    loss: of this step; gradient_norm: of the step before. interrupts, terminations: how many processes were asked to
    stop by SIGINT and SIGTERM; unreadable: images left out. failed_saves: how many processes know of one.
    """

    loss: float
    gradient_norm: float
    interrupts: int
    terminations: int
    unreadable: int
    failed_saves: int


class Pulse:
    """Sent before the backward pass, received when that is queued: while the host waits, the device computes.

    Over several processes it is one sum of six numbers a step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.size = device, rank_and_size()[1]
        self._host = torch.zeros(6)
        if device.type == "cuda":
            self._host = self._host.pin_memory()
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch gives it no types

    def send(self, loss: Tensor, gradient_norm: Tensor, *counts: int) -> None:
        """counts: interrupts, terminations, unreadable, failed saves of this process."""
        mine = torch.tensor(counts, dtype=torch.float32)
        if self.device.type == "cuda":
            mine = mine.pin_memory().to(self.device, non_blocking=True)
        measured = torch.stack([loss.detach().float(), gradient_norm.float()])
        values = torch.cat([measured, mine.to(self.device)])
        if self.size > 1:
            dist.all_reduce(values)
        self._host.copy_(values, non_blocking=True)
        if self.device.type == "cuda":
            self._done.record()

    def receive(self) -> News:
        if self.device.type == "cuda":
            self._done.synchronize()
        loss, norm, *counts = self._host.tolist()
        return News(loss / self.size, norm / self.size, *map(int, counts))
