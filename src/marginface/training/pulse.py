"""What the host must know of a step, without ever letting the device wait. For the training loop."""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from marginface.processes import rank_and_size
from marginface.training.signals import STOP_SIGNALS


class News(NamedTuple):
    """Of one step, the same on all processes.

    loss: of this step; gradient_norm: of the step before. unreadable: images left out. failed_saves: how many processes
    know of one; failed_loads: how many have no batch. stop: the first of STOP_SIGNALS that any process received, or 0.
    """

    loss: float
    gradient_norm: float
    unreadable: int
    failed_saves: int
    failed_loads: int
    stop: int


class Pulse:
    """Sent before the backward pass, received when that is queued: while the host waits, the device computes.

    Over several processes it is one sum of a few numbers per step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.size = device, rank_and_size()[1]
        self._host = torch.zeros(5 + len(STOP_SIGNALS))
        if device.type == "cuda":
            self._host = self._host.pin_memory()
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch gives it no types

    def send(
        self, loss: Tensor, gradient_norm: Tensor, unreadable: int, failed_save: bool, failed_load: bool, stop: int
    ) -> None:
        """All of this process; see `News`."""
        stops = [stop == number for number in STOP_SIGNALS]
        mine = torch.tensor([unreadable, failed_save, failed_load, *stops], dtype=torch.float32)
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
        loss, norm, unreadable, saves, loads, *stops = self._host.tolist()
        stop = next((number for number, count in zip(STOP_SIGNALS, stops, strict=True) if count), 0)
        return News(loss / self.size, norm / self.size, int(unreadable), int(saves), int(loads), stop)
