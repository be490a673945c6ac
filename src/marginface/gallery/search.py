"""Exact nearest neighbours among up to a few million vectors in memory. Called by `people`, and its benchmark.

A first pass only has to say in which few groups of rows the answer lies; the rows of those groups are compared again
in float32. Where the processor multiplies 8-bit numbers (AVX-512 VNNI) the first pass is over copies that are rounded
to these, a quarter of the memory, laid out once as its product wants them; elsewhere it is over the vectors themselves.
"""

from collections.abc import Callable

import numpy as np
import torch

GROUP, SPARE = 32, 3  # rows in a group; groups that are looked at again beyond those that are asked for
BLOCK = 1 << 14  # rows a product, whose scores stay in the processor's cache until the groups' best are known


class Matrix:
    """vectors: float32 (n, D), L2-normalised or shorter; kept, and on some processors once more in 8 bits."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._exact = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
        self._rounding = bool(torch.cpu._is_vnni_supported())
        # one scale for all rows, so that the products of whole numbers rank as they are
        scale = 127 / max(float(np.abs(vectors).max(initial=0)), 1e-12)
        blocks = torch.split(self._exact, BLOCK) if len(vectors) else ()
        self._blocks = [_rounded_once(block, scale) if self._rounding else _plain(block) for block in blocks]

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def bytes(self) -> int:
        """Memory held."""
        return self._exact.numel() * (5 if self._rounding else 4)

    def search(self, probes: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The `count` most similar rows of each probe, float32 (m, D): cosines float32 and rows int64, (m, count).

        Exact, unless rounding (of the order of 0.001) puts more than SPARE groups before the right one. Fewer columns
        where the matrix has fewer rows.
        """
        x = torch.from_numpy(np.ascontiguousarray(probes, np.float32))
        count = min(count, len(self))
        if not count or not len(x):
            return np.empty((len(x), count), np.float32), np.empty((len(x), count), np.int64)
        rows = self._candidates(x, count + SPARE)  # (m, c), -1 behind the end
        scores = torch.stack([self._exact[row.clamp(min=0)] @ probe for row, probe in zip(rows, x, strict=True)])
        scores[rows < 0] = -torch.inf
        best, place = scores.topk(count, dim=1)
        return best.numpy(), rows.gather(1, place).numpy()

    def _candidates(self, x: torch.Tensor, groups: int) -> torch.Tensor:
        """Rows of the best groups of each probe, int64 (m, groups * GROUP) or fewer."""
        if self._rounding:
            # oneDNN multiplies numbers without a sign by numbers with one
            x = (x * (127 / x.abs().amax(1, keepdim=True).clamp(min=1e-12)) + 128).round().to(torch.uint8)
        maxima = torch.cat([block(x) for block in self._blocks], dim=1)
        best = maxima.topk(min(groups, maxima.shape[1]), dim=1).indices
        rows = (best[:, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
        return torch.where(rows < len(self), rows, -1)


GroupMaxima = Callable[[torch.Tensor], torch.Tensor]
"""Probes (m, D) -> the best product of each group of a block, float32 (m, groups)."""


def _plain(block: torch.Tensor) -> GroupMaxima:
    short = -len(block) % GROUP

    def maxima(probes: torch.Tensor) -> torch.Tensor:
        scores = torch.nn.functional.pad(probes @ block.T, (0, short), value=-torch.inf)
        return scores.view(len(probes), -1, GROUP).amax(2)

    return maxima


def _rounded_once(block: torch.Tensor, scale: float) -> GroupMaxima:
    """block: float32, rounded after multiplication by `scale`. The probes are uint8 with their zero at 128."""
    rows = _interleaved((block * scale).round().to(torch.int8))
    packed = torch.ops.onednn.qlinear_prepack(rows, [100, rows.shape[1]])
    ones, zeros = torch.ones(len(rows)), torch.zeros(len(rows), dtype=torch.int32)

    def maxima(probes: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            probes, 1.0, 128, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return scores.view(len(probes), GROUP, -1).amax(1)

    return maxima


def _interleaved(block: torch.Tensor) -> torch.Tensor:
    """First rows of all groups, then second ones, ...: finding the groups' best then runs along the memory.

    A group that is not full gets the last row again; what is found there lies behind the end, and is no answer.
    """
    full = torch.cat([block, block[-1:].expand(-len(block) % GROUP, -1)])
    return full.view(-1, GROUP, block.shape[1]).transpose(0, 1).reshape(full.shape)
