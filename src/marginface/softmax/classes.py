"""The class weights as the block loop of `streaming.py` sees them: cut into blocks, whether all or drawn ones.

Shape legend: S classes drawn; D features; K classes of one block; B = K·sub_centers rows of the weight in one block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from marginface.margins.base import at_least_float32
from marginface.softmax.kernels import store_gradient, through_norm
from marginface.softmax.workspace import Workspace

Rows = slice | Tensor  # of the weight


class Piece(NamedTuple):
    """What `kernels.through_norm` makes the gradient by some rows of the weight of."""

    by_unit_TD: Tensor
    weight_TD: Tensor  # float32 or wider
    inverse_T: Tensor | None  # with `radial`: None where rows are not normalised
    radial_T: Tensor | None
    spare_TD: Tensor | None  # `by_unit` itself; None where passes are compiled


class WeightSink(Protocol):
    """Takes the gradient of the class weights piece by piece: collects it, or updates the weights at once."""

    def put(self, rows: Rows, piece: Piece) -> None: ...

    def gradient(self) -> Tensor | None: ...


class CollectedGradient:
    """The ordinary sink: the gradient as a tensor like the weight, 0 where no class took part."""

    def __init__(self, weight: Tensor, workspace: Workspace) -> None:
        self.grad, self.workspace = torch.zeros_like(weight), workspace

    def put(self, rows: Rows, piece: Piece) -> None:
        if isinstance(rows, slice):
            self.workspace.run(store_gradient, self.grad[rows], *piece)
        else:
            self.grad[rows] = self.workspace.run(through_norm, *piece).to(self.grad.dtype)

    def gradient(self) -> Tensor | None:
        return self.grad


@dataclass(frozen=True)
class Block:
    """Classes start..stop of those that take part, and the rows of the weight that hold them."""

    start: int
    stop: int
    rows: Rows

    def part(self, tile: slice) -> Rows:
        """Some of the rows, counted within the block."""
        if isinstance(self.rows, Tensor):
            return self.rows[tile]
        return slice(self.rows.start + tile.start, self.rows.start + tile.stop)


@dataclass(frozen=True)
class Classes:
    """The classes that take part on this rank: all of its shard, or those drawn."""

    weight: Tensor  # (local classes · sub_centers, D), the sub-centers of a class adjacent
    bias: Tensor | None
    index_S: Tensor | None  # sorted local classes that were drawn; None: all
    sub_centers: int
    block_size: int

    def __len__(self) -> int:
        return len(self.weight) // self.sub_centers if self.index_S is None else len(self.index_S)

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self), self.block_size):
            stop = min(start + self.block_size, len(self))
            if self.index_S is None:
                yield Block(start, stop, slice(start * self.sub_centers, stop * self.sub_centers))
            else:
                yield Block(start, stop, self.rows_of(self.index_S[start:stop]).flatten())

    def read(self, block: Block, workspace: Workspace) -> Tensor:
        """The block's rows of the weight (B, D), float32 or wider."""
        weight = self.weight.detach()
        if isinstance(block.rows, slice):
            return at_least_float32(weight[block.rows])
        drawn_BD = workspace.get("weight", (len(block.rows), weight.shape[1]), weight)
        return at_least_float32(torch.index_select(weight, 0, block.rows, out=drawn_BD))

    def span(self, block: Block) -> slice:
        """Where the block is in a vector over the rows of all classes taking part."""
        return slice(block.start * self.sub_centers, block.stop * self.sub_centers)

    def rows_of(self, classes: Tensor) -> Tensor:
        """Rows of the weight (…, sub_centers) of local classes."""
        return classes[..., None] * self.sub_centers + torch.arange(self.sub_centers, device=classes.device)

    def rows_of_columns(self, column_V: Tensor) -> Tensor:
        """Rows of the weight (V, sub_centers) of positions among the classes taking part."""
        return self.rows_of(column_V if self.index_S is None else self.index_S[column_V])
