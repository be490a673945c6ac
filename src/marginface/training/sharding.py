"""A network whose weights are split over the processes (FSDP2): each has a share of all of them. For start and loop."""

import copy
from typing import cast

import torch
import torch.distributed as dist
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import _ParallelBackwardSyncControl
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from marginface.backbones import Backbone


class ShardedStrategy(DDPStrategy):
    """Processes and their messages as DDPStrategy has them, for a network that `split` has split."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # passed on as they are
        self._backward_sync_control = _ParallelBackwardSyncControl()

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        return cast(DistributedDataParallel, module)  # it gathers weights and sends gradients by itself


class Whole:
    """Makes a whole network again of one that was split. All processes must call it together.

    before: the network before that, in the host's memory.
    """

    def __init__(self, backbone: nn.Module, device: torch.device) -> None:
        self.device, self.before = device, copy.deepcopy(backbone).to("cpu")

    def __call__(self, backbone: nn.Module) -> nn.Module:
        """On the device, with the weights of `backbone` as they are now."""
        state: dict[str, Tensor] = backbone.state_dict()
        found = copy.deepcopy(self.before).to(self.device)
        found.load_state_dict({name: full(value) for name, value in state.items()})
        return found


def split(backbone: Backbone, device: torch.device) -> None:
    """Leaves each process the same share of every weight; all gather a piece when its turn comes, and let it go again.

    Weights are gathered in float32, so that autocast makes of them what it makes of a copied network's.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    backbone.to(memory_format=torch.contiguous_format)  # it takes no other
    for piece in (*backbone.pieces(), backbone):
        fully_shard(piece, mesh=mesh)


def full(value: Tensor) -> Tensor:
    """The whole of a tensor that was split, as every process then has it; any other as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value
