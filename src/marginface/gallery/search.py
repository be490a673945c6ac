"""Exact nearest neighbours among up to a few million vectors in memory. Called by `people`, and its benchmark.

A first pass over 8-bit copies reads a quarter of the memory and uses the processor's own 8-bit arithmetic; it only has
to say in which few groups of rows the answer lies. The rows of those groups are compared again in float32.
"""

import numpy as np
import torch

GROUP, KEPT = 32, 8  # rows in a group; groups that are looked at again
BLOCK = 1 << 16  # rows a product


class Matrix:
    """vectors: float32 (n, D), L2-normalised; kept, and once more at a quarter of the size."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._exact = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
        # one scale for all rows, so that the products of whole numbers rank as they are
        self._scale = 127 / max(float(np.abs(vectors).max(initial=0)), 1e-12)
        parts = [_rounded(part, self._scale) for part in torch.split(self._exact, BLOCK)]
        self._rough = torch.cat(parts) if parts else self._exact.to(torch.int8)

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(part.numel() * part.element_size() for part in (self._exact, self._rough))

    def search(self, probes: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The `count` most similar rows of each probe, float32 (m, D): cosines float32 and rows int64, (m, count).

        Exact up to count = KEPT, unless rounding (of the order of 0.001) puts KEPT groups before the right one.
        Fewer columns where the matrix has fewer rows.
        """
        x = torch.from_numpy(np.ascontiguousarray(probes, np.float32))
        count = min(count, len(self))
        if not count or not len(x):
            return np.empty((len(x), count), np.float32), np.empty((len(x), count), np.int64)
        rows = self._candidates(x)  # (m, c), -1 behind the end
        scores = torch.stack([self._exact[row.clamp(min=0)] @ probe for row, probe in zip(rows, x, strict=True)])
        scores[rows < 0] = -torch.inf
        best, place = scores.topk(count, dim=1)
        return best.numpy(), rows.gather(1, place).numpy()

    def _candidates(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of the KEPT best groups of each probe, int64 (m, KEPT * GROUP)."""
        scale = 127 / x.abs().amax(1, keepdim=True).clamp(min=1e-12)
        rough = _rounded(x, scale)
        maxima = torch.cat([self._group_maxima(rough, start) for start in range(0, len(self), BLOCK)], dim=1)
        groups = maxima.float().topk(min(KEPT, maxima.shape[1]), dim=1).indices
        rows = (groups[:, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
        return torch.where(rows < len(self), rows, -1)

    def _group_maxima(self, probes: torch.Tensor, start: int) -> torch.Tensor:
        """Best product of each group in a block, int32 (m, groups)."""
        scores = torch._int_mm(probes, self._rough[start : start + BLOCK].T)
        short = -scores.shape[1] % GROUP
        if short:
            scores = torch.nn.functional.pad(scores, (0, short), value=-(2**31) + 1)
        return scores.view(len(probes), -1, GROUP).amax(2)


def _rounded(x: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
    return (x * scale).round().to(torch.int8)
