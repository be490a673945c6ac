"""What a training step needs on every device: memory by part, arithmetic, bytes over the wire. For `marginface plan`.

The formulas are those of docs/softmax.md; a test holds them against what a small run really allocates.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from marginface.backbones import create_backbone
from marginface.backbones.size import measure
from marginface.errors import InputError
from marginface.softmax.kernels import CPU_TILE, default_block

SLOTS = {"sgd": 1, "adamw": 2}  # numbers an optimiser keeps for each weight
FLOAT = 4  # bytes of a float32; weights, gradients and optimiser state are never anything else


@dataclass(frozen=True, slots=True)
class Plan:
    """memory: bytes on each device by part. flops: per image of the global batch, on all devices together.

    wire: bytes each device sends in a step (rings; the same number is received).
    """

    memory: dict[str, int]
    flops: dict[str, int]
    wire: dict[str, int]

    def milliseconds(self, batch: int, teraflops: float, gigabytes: float) -> dict[str, float]:
        """Of a step with `batch` images a device, by part: arithmetic, and what is sent.

        teraflops: what a device sustains a second; gigabytes: what it sends a second. The gradient of the backbone is
        sent while the backward pass goes on, all else is waited for.
        """
        counted = {f"arithmetic of the {part}": batch * flops / teraflops / 1e9 for part, flops in self.flops.items()}
        sent = {f"sending: {part}": size / gigabytes / 1e6 for part, size in self.wire.items()}
        return counted | sent


@dataclass(frozen=True, slots=True)
class HeadShape:
    """The numbers that size a head; `batch` is per device, `sample_rate` as in `MarginSoftmax`.

    fused: `MarginSoftmax.fuse_sgd`; otherwise an optimiser of torch, and with sample_rate < 1 `update_drawn`.
    """

    num_classes: int
    num_features: int = 512
    batch: int = 128
    devices: int = 1
    sample_rate: float = 1.0
    sub_centers: int = 1
    optimizer: str = "sgd"
    fused: bool = True
    bfloat16: bool = True
    device: str = "cuda"

    def __post_init__(self) -> None:
        if min(self.num_classes, self.num_features, self.batch, self.devices, self.sub_centers) < 1:
            raise InputError("classes, features, batch, devices and sub-centers must be at least 1.")
        if not 0 < self.sample_rate <= 1:
            raise InputError(f"sample_rate must be above 0 and at most 1, not {self.sample_rate}.")
        if self.optimizer not in SLOTS:
            raise InputError(f"optimizer must be one of {', '.join(SLOTS)}, not {self.optimizer!r}.")

    @property
    def rows(self) -> int:
        """Rows of the global batch."""
        return self.batch * self.devices

    @property
    def local(self) -> int:
        """Rows of the weight on the device that has most."""
        return math.ceil(self.num_classes / self.devices) * self.sub_centers

    @property
    def drawn(self) -> int:
        """Rows of the weight that take part in a step on that device, which has its share of the batch's labels."""
        share = int(self.sample_rate * self.local // self.sub_centers)
        return self.local if self.sample_rate == 1 else max(share, min(self.batch, self.local)) * self.sub_centers


def plan(
    shape: HeadShape, backbone: str = "iresnet100", mixed_precision: bool = True, shard_backbone: bool = False
) -> Plan:
    """The whole training step: `backbone` at `shape.batch` images a device, and the head.

    Raises InputError for an unknown backbone. `mixed_precision`: the backbone's activations in 16 bits.
    `shard_backbone`: FSDP2 as `trainer.shard_backbone` has it, else DistributedDataParallel.
    """
    size = measure(backbone, shape.num_features)
    sharded = shard_backbone and shape.devices > 1
    state = math.ceil(size.parameters / (shape.devices if sharded else 1)) * FLOAT
    buckets = shape.devices > 1 and not sharded  # which DDP keeps beside the gradient
    memory = {
        "backbone weights": state,
        "backbone gradient": state * (2 if buckets else 1),
        "backbone optimiser": state * SLOTS[shape.optimizer],
        **({"backbone pieces": piece_bytes(backbone, shape.num_features)} if sharded else {}),
        "backbone weights in 16 bits": size.parameters * 2 if mixed_precision else 0,
        "backbone activations": shape.batch * activation_bytes(backbone, shape.num_features, mixed_precision),
    }
    flops = {"backbone": 3 * 2 * size.macs, "head": head_flops(shape)}  # backward costs twice the forward pass
    return Plan(memory | head_memory(shape), flops, wire_bytes(shape, size.parameters, sharded))


def head_memory(shape: HeadShape) -> dict[str, int]:
    """Bytes of a `MarginSoftmax` on the device with most classes, by part."""
    weights = shape.local * shape.num_features * FLOAT
    dtype = torch.bfloat16 if shape.bfloat16 else torch.float32
    product = dtype.itemsize
    block = min(default_block(shape.rows, shape.num_features, dtype, torch.device(shape.device)), shape.drawn)
    products, rows_of_weight = shape.rows * block, block * shape.num_features
    tile = min(CPU_TILE, rows_of_weight) if shape.device == "cpu" else rows_of_weight
    batch = shape.rows * shape.num_features
    buffers = {
        "products": products * product,
        "powers": products * FLOAT if shape.bfloat16 else 0,
        "unit weights and their gradient": 2 * rows_of_weight * product,
        "a tile": 2 * tile * FLOAT,
        "drawn weights": rows_of_weight * FLOAT if shape.sample_rate < 1 else 0,
    }
    slots = SLOTS[shape.optimizer]
    gradient = weights
    if shape.sample_rate < 1:  # of the rows drawn; they and their state are copied for the optimiser
        gradient = shape.drawn * shape.num_features * FLOAT * (2 + slots)
    return {
        "class weights": weights,
        "class optimiser": weights * slots,
        "class gradient": 0 if shape.fused else gradient,
        "class norms": shape.drawn * FLOAT,
        "head blocks": sum(buffers.values()),
        # x gathered, its valid rows, at unit length, the two factors, its gradient; and each row's own class weight
        "head batch": batch * (5 * FLOAT + 3 * product) + 2 * batch * shape.sub_centers * FLOAT,
    }


def head_flops(shape: HeadShape) -> int:
    """Of one image: four products of x with every class weight: forward, again, gradient of x, of the weight."""
    return 4 * 2 * shape.num_features * shape.drawn * shape.devices


def wire_bytes(shape: HeadShape, parameters: int, sharded: bool = False) -> dict[str, int]:
    """Bytes each device sends in a step, in rings. Backbones return float32 also under autocast.

    A sharded backbone's weights are gathered for the forward pass and again for the backward pass.
    """
    others = shape.devices - 1
    embeddings = others * shape.batch * shape.num_features
    vectors = 6  # of a number per row: target cosine, maximum, four sums
    copy = others * parameters * FLOAT // shape.devices
    return {
        **({"backbone weights": 2 * copy} if sharded else {}),
        "backbone gradient": copy if sharded else 2 * copy,
        "embeddings and labels": embeddings * FLOAT + others * shape.batch * 8,
        "gradient of embeddings": embeddings * FLOAT,
        "sums of the softmax": 2 * others * shape.batch * vectors * FLOAT,
    }


def piece_bytes(name: str, num_features: int = 512) -> int:
    """What of a sharded backbone's weights and gradient a device holds whole at once.

    Of what is in no piece, both; the weights of two pieces, one at work and the next on its way; the gradient of one,
    and it again in the order in which it is sent.
    """
    with torch.device("meta"):
        backbone = create_backbone(name, num_features)
    pieces = [sum(p.numel() for p in piece.parameters()) for piece in backbone.pieces()]
    rest = sum(p.numel() for p in backbone.parameters()) - sum(pieces)
    pairs = [one + other for one, other in pairwise([0, *pieces])]
    return FLOAT * (2 * rest + max(pairs, default=0) + 2 * max(pieces, default=0))


def activation_bytes(name: str, num_features: int = 512, mixed_precision: bool = True) -> int:
    """What one image's forward pass keeps for the backward pass; found on the meta device, nothing is computed."""
    batch = 2  # batch norm wants more than one image
    with torch.device("meta"):
        backbone = create_backbone(name, num_features).train()
        images = torch.empty(batch, 3, *backbone.image_size)
    weights = {parameter.untyped_storage()._cdata for parameter in backbone.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:  # nor a view of them: a linear layer keeps its weight transposed
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        alive = backbone(images)  # while it lives no storage's address is given to another
    del alive
    return sum(kept.values()) // batch // (2 if mixed_precision else 1)
