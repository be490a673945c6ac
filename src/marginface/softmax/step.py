"""What one step of the streaming engine works on; built by `head.py`, read by `streaming.py`.

Shape legend: R rows of the global batch that take part, labelled ones first; V labelled rows; D features;
K classes of one block; B = K·sub_centers rows of the weight in one block.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from marginface.margins.base import Margin, at_least_float32
from marginface.softmax.sharded import Shards

WIDEST_SHIFT = 70.0  # exp(±70)·1e7 is within float32's normal range: scales up to 70 need no running maximum


class WeightSink(Protocol):
    """Takes the gradient of the class weights block by block: collects it, or updates the weights at once."""

    def put(self, rows: slice | Tensor, grad_BD: Tensor) -> None: ...

    def gradient(self) -> Tensor | None: ...


class CollectedGradient:
    """The ordinary sink: the gradient as a tensor like the weight, 0 where no class took part."""

    def __init__(self, weight: Tensor) -> None:
        self.grad = torch.zeros_like(weight)

    def put(self, rows: slice | Tensor, grad_BD: Tensor) -> None:
        self.grad[rows] = grad_BD

    def gradient(self) -> Tensor | None:
        return self.grad


@dataclass(frozen=True)
class Block:
    """Classes start..stop of those that take part, and the rows of the weight that hold them."""

    start: int
    stop: int
    rows: slice | Tensor


@dataclass(frozen=True)
class Classes:
    """The classes that take part on this rank: all of its shard, or those drawn. Cut into blocks."""

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

    def read(self, block: Block) -> Tensor:
        """The block's rows of the weight (B, D), float32 or wider."""
        return at_least_float32(self.weight[block.rows])

    def span(self, block: Block) -> slice:
        """Where the block's rows are in a vector over the rows of all classes taking part."""
        return slice(block.start * self.sub_centers, block.stop * self.sub_centers)

    def rows_of(self, classes: Tensor) -> Tensor:
        """Rows of the weight (…, sub_centers) of local classes."""
        return classes[..., None] * self.sub_centers + torch.arange(self.sub_centers, device=classes.device)


@dataclass(frozen=True)
class Step:
    """Everything about one step that is not differentiated."""

    margin: Margin
    classes: Classes
    shards: Shards
    column_V: Tensor  # the label as position among the classes taking part here; −1 where another rank has it
    num_columns: int  # classes taking part on all ranks
    product_dtype: torch.dtype
    open_sink: Callable[[], WeightSink] | None  # None: the weights need no gradient
    label_smoothing: float
    focal_gamma: float
    partial_fc: bool  # rows without label count, as all negatives, and no row reports more than −log 1e-30

    @property
    def num_labelled(self) -> int:
        return len(self.column_V)

    @property
    def general(self) -> bool:
        """Whether a block needs more than exp of its scaled products: its own autograd, or the sum of logits."""
        return self.margin.bends_negatives or self.margin.scale_from_norm or self.label_smoothing > 0

    @property
    def shift(self) -> float | None:
        """A constant that replaces the running maximum, where every logit lies within ±scale and scale ≤ 70."""
        fixed_scale = type(self.margin).row_scale is Margin.row_scale
        if self.general or not self.margin.normalised or not fixed_scale or self.margin.scale > WIDEST_SHIFT:
            return None
        return self.margin.scale - WIDEST_SHIFT


@dataclass
class Targets:
    """The V-sized part of a step, under autograd: the target cosines and what the margin made of them."""

    cos_y_V: Tensor  # leaf
    norms_R: Tensor  # leaf
    bent_V: Tensor
    scale_R: Tensor
    nearest_V: Tensor  # which sub-center of the target class is nearest
