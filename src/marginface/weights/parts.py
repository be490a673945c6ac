"""Who writes and reads which rows of which tensor: planners of torch.distributed.checkpoint, for `state.py`."""

import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list
from torch.distributed.tensor import DTensor

from marginface.errors import InputError


@dataclass(frozen=True)
class Part:
    """Rows `first` to `first + len(rows)` of a tensor of `total` rows; the others belong to other processes."""

    rows: Tensor
    first: int
    total: int


def own(value: Tensor) -> Tensor:
    """What this process has of a tensor that FSDP split; any other as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def own_rows(value: Tensor) -> Tensor | Part:
    """The same with its place: FSDP gives every process as many rows as the first has, the last ones fewer or none."""
    if not isinstance(value, DTensor):
        return value
    total, size = value.shape[0], value.device_mesh.size()
    return Part(value.to_local(), min(-(-total // size) * value.device_mesh.get_rank(), total), total)


def _part(value: Tensor | Part) -> Part:
    """A whole tensor too is a part: all of its rows."""
    return value if isinstance(value, Part) else Part(value, 0, value.shape[0] if value.dim() else 0)


def _chunk(part: Part) -> ChunkStorageMetadata:
    offsets = [part.first, *[0] * (part.rows.dim() - 1)] if part.rows.dim() else []
    return ChunkStorageMetadata(torch.Size(offsets), part.rows.shape)


class WriteParts(SavePlanner):
    """Parts are written by their owners; whole tensors, which all processes hold alike, by one after the other."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.parts: dict[str, Part] = {}
        self.whole: set[str] = set()

    def set_up_planner(
        self, state_dict: dict[str, Any], storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        self.parts = {name: _part(value) for name, value in state_dict.items()}
        self.whole = {name for name, value in state_dict.items() if not isinstance(value, Part)}

    def create_local_plan(self) -> SavePlan:
        return SavePlan(
            [
                self._item(name, part)
                for number, (name, part) in enumerate(sorted(self.parts.items()))
                if (number % self.size == self.rank if name in self.whole else len(part.rows))
            ]
        )

    def _item(self, name: str, part: Part) -> WriteItem:
        chunk = _chunk(part)
        total = torch.Size([part.total, *part.rows.shape[1:]]) if part.rows.dim() else part.rows.shape
        properties = TensorProperties(dtype=part.rows.dtype)
        data = TensorWriteData(chunk=chunk, properties=properties, size=total)
        return WriteItem(index=MetadataIndex(name, chunk.offsets), type=WriteItemType.SHARD, tensor_data=data)

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        return create_default_global_save_plan(all_plans)

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        return new_plan

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        return self.parts[write_item.index.fqn].rows.detach()


class ReadParts(LoadPlanner):
    """Every process reads the rows it wants, whoever wrote them."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.metadata: Metadata | None = None

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        self.parts, self.metadata = {name: _part(value) for name, value in state_dict.items()}, metadata

    def create_local_plan(self) -> LoadPlan:
        items: list[ReadItem] = []
        for name, part in self.parts.items():
            stored = self.metadata.state_dict_metadata.get(name) if self.metadata else None
            if not isinstance(stored, TensorStorageMetadata):
                raise InputError(f"it holds no {name}")
            if part.rows.numel():
                items += create_read_items_for_chunk_list(name, stored, [_chunk(part)])
        return LoadPlan(items)

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise InputError(f"{read_item.dest_index.fqn} is not a tensor")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        tensor = self.parts[read_item.dest_index.fqn].rows.detach()
        for dim, (offset, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            tensor = tensor.narrow(dim, offset, length)
        return tensor

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """`read_item` was copied into place."""
