"""Exact nearest neighbours among up to a few million vectors in memory. Called by `people`, and its benchmark.

A first pass in bfloat16 reads half the memory and uses the processor's own bf16 arithmetic where there is one; it only
has to say in which few groups of 64 rows the answer lies. Those rows are compared again in float32.
"""

import numpy as np
import torch

GROUP, KEPT = 64, 8  # rows in a group; groups that are looked at again
BLOCK = 64 * GROUP * 16  # rows a product: its result of 100 probes stays near the processor


class Matrix:
    """vectors: float32 (n, D), L2-normalised; kept, and once more at half the size."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._exact = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
        self._rough = self._exact.to(torch.bfloat16)

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(part.numel() * part.element_size() for part in (self._exact, self._rough))

    def search(self, probes: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The `count` most similar rows of each probe, float32 (m, D): cosines float32 and rows int64, (m, count).

        Exact up to count = KEPT, unless bfloat16's rounding (0.004) puts KEPT groups before the right one.
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
        rough = x.to(torch.bfloat16).T.contiguous()
        maxima = torch.cat([self._group_maxima(start, rough) for start in range(0, len(self), BLOCK)])
        groups = maxima.T.float().topk(min(KEPT, len(maxima)), dim=1).indices
        rows = (groups[:, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
        return torch.where(rows < len(self), rows, -1)

    def _group_maxima(self, start: int, probes: torch.Tensor) -> torch.Tensor:
        """Best score of each group in a block, (groups, m)."""
        scores = self._rough[start : start + BLOCK] @ probes
        short = -len(scores) % GROUP
        if short:
            scores = torch.cat([scores, scores.new_full((short, scores.shape[1]), -torch.inf)])
        return scores.view(-1, GROUP, scores.shape[1]).amax(1)
