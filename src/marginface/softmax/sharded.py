"""Classes split over the ranks of a process group; `head.py` asks. Without a group every call is the identity.

Shape legend: N rows of this rank's batch, G = N·ranks rows of the global batch.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class Shards:
    """Who owns which classes, and the exchanges of a step: gather the batch, take a maximum, take a sum."""

    def __init__(self, num_classes: int, process_group: dist.ProcessGroup | None = None) -> None:
        self.group = process_group
        self.size = 1 if process_group is None else dist.get_world_size(process_group)
        self.rank = 0 if process_group is None else dist.get_rank(process_group)
        self.start, self.stop = shard_range(num_classes, self.rank, self.size)

    def gather_rows(self, x_ND: Tensor) -> Tensor:
        """The embeddings of all ranks (G, D), in their order. Every rank must bring equally many rows.

        The gradient is summed over the ranks and multiplied by their number, so that the averaging of
        DistributedDataParallel gives the backbone the gradient of the global mean.
        """
        gathered: Tensor = x_ND if self.size == 1 else _GatherRows.apply(x_ND, self)
        return gathered

    def gather_labels(self, labels_N: Tensor) -> Tensor:
        return labels_N if self.size == 1 else self.gather(labels_N)

    def gather(self, x_N: Tensor) -> Tensor:
        x_G = x_N.new_empty((len(x_N) * self.size, *x_N.shape[1:]))
        dist.all_gather(list(x_G.chunk(self.size)), x_N.contiguous(), group=self.group)
        return x_G

    def max(self, x: Tensor) -> Tensor:
        """Elementwise maximum over the ranks."""
        if self.size > 1:
            dist.all_reduce(x, dist.ReduceOp.MAX, group=self.group)
        return x

    def sum(self, x: Tensor) -> Tensor:
        """Elementwise sum over the ranks."""
        if self.size > 1:
            dist.all_reduce(x, dist.ReduceOp.SUM, group=self.group)
        return x

    def sum_own_rows(self, x_GD: Tensor) -> Tensor:
        """Sum over the ranks of this rank's rows (N, D)."""
        num_rows = len(x_GD) // self.size
        if x_GD.is_cuda:
            own_ND = x_GD.new_empty((num_rows, *x_GD.shape[1:]))
            dist.reduce_scatter_tensor(own_ND, x_GD.contiguous(), group=self.group)
            return own_ND
        return self.sum(x_GD.clone())[self.rank * num_rows : (self.rank + 1) * num_rows]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_ND: Tensor, shards: Shards) -> Tensor:
        ctx.shards, ctx.dtype = shards, x_ND.dtype  # type: ignore[attr-defined]  # torch's own way to keep things
        return shards.gather(x_ND)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_GD: Tensor) -> tuple[Tensor, None]:
        shards: Shards = ctx.shards  # type: ignore[attr-defined]
        return shards.sum_own_rows(grad_GD).to(ctx.dtype) * shards.size, None  # type: ignore[attr-defined]


def shard_range(num_classes: int, rank: int, size: int) -> tuple[int, int]:
    """First and one past the last class of a rank; the first `num_classes % size` ranks own one more."""
    share, rest = divmod(num_classes, size)
    start = rank * share + min(rank, rest)
    return start, start + share + (rank < rest)
