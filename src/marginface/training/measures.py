"""What a step tells of itself, put together only when a row of the log is due. For the training loop."""

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from marginface.margins import BinaryMargin, Margin
from marginface.softmax import MarginSoftmax

QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95}


def target_column(margin: Margin | BinaryMargin) -> str:
    """Name what is logged of the own class: a cosine, or the logit of `softmax`, which normalises nothing."""
    return "target_logit" if isinstance(margin, Margin) and not margin.normalised else "target_cosine"


def head_columns(margin: Margin | BinaryMargin) -> list[str]:
    """The columns that `head_numbers` fills, but for the margin's state."""
    named = [target_column(margin), "norm"]
    return [*(column for name in named for column in (name, *(f"{name}_{key}" for key in QUANTILES))), "easy", "hard"]


def head_numbers(head: MarginSoftmax) -> dict[str, Tensor]:
    """`head_columns` and the margin's state, from the rows of the last step's global batch; nothing waits.

    easy: share of the rows that are right with the margin: their own class is likelier than all others together.
    hard: share of those that would be wrong without it. Empty for the dense engine, which keeps nothing.
    """
    found = {f"margin_{name}": value.detach() for name, value in margin_state(head.margin).items()}
    last = head.last
    if last is None or len(last.cosines_V) == 0:
        return found
    for name, values in ((target_column(head.margin), last.cosines_V), ("norm", last.norms_V)):
        found[name] = values.mean()
        found |= {f"{name}_{key}": values.quantile(share) for key, share in QUANTILES.items()}
    with_margin_V, without_V = head.lead(last)
    found["easy"], found["hard"] = (with_margin_V > 0).float().mean(), (without_V <= 0).float().mean()
    return found


def margin_state(margin: nn.Module) -> dict[str, Tensor]:
    """What a margin has learned or counted, a number each, but for the steps that a random margin has taken."""
    named = {**dict(margin.named_buffers()), **dict(margin.named_parameters())}
    return {name: value for name, value in named.items() if value.numel() == 1 and name != "step"}


def to_host(values: Mapping[str, Tensor]) -> dict[str, float]:
    """One copy from the device for all of them."""
    if not values:
        return {}
    devices = {value.device for value in values.values() if value.device.type != "cpu"}
    device = devices.pop() if devices else torch.device("cpu")
    together = torch.stack([value.detach().reshape(()).to(device, torch.float64) for value in values.values()])
    return dict(zip(values, together.tolist(), strict=True))


def memory(device: torch.device) -> float:
    """GiB: the most that tensors took on a GPU so far, or what the process has in memory; NaN where that is hidden."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "linux":
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**30
    return math.nan
