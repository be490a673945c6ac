"""Which arithmetic the block loop of `streaming.py` uses, and its small steps.

Shape legend: R rows of the batch, V of them labelled; B rows of the weight in one block; D features.
"""

from typing import Literal

import torch
from torch import Tensor

from marginface.margins.base import one_of

Precision = Literal["auto", "float32", "bfloat16"]
TINY = 1e-12  # rows of the weight shorter than this are divided by it, as in `dense.normalise`
WORTHWHILE_CLASSES = 8192  # below, bfloat16 saves less time than its rounding costs accuracy
CPU_BLOCK = 2**21  # elements of one block of cosines: 8 MB in float32, which stays in the last-level cache
GPU_BLOCK = 2**25


def product_dtype(precision: Precision, dtype: torch.dtype, device: torch.device, num_classes: int) -> torch.dtype:
    """The type in which blocks are multiplied; everything else is kept in `dtype`, float32 or wider.

    "auto" is bfloat16 where the machine multiplies it natively and there are at least 8192 classes.
    float64 is always multiplied in float64.
    """
    one_of("precision", precision, ("auto", "float32", "bfloat16"))
    if dtype == torch.float64 or precision == "float32":
        return dtype
    if precision == "bfloat16" or (num_classes >= WORTHWHILE_CLASSES and native_bfloat16(device)):
        return torch.bfloat16
    return dtype


def native_bfloat16(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def default_block(num_rows: int, device: torch.device) -> int:
    """Classes of a block, so that its cosines stay in cache on a CPU and fill the machine on a GPU."""
    elements = CPU_BLOCK if device.type == "cpu" else GPU_BLOCK
    block = elements // max(1, num_rows)
    return min(16384, max(1024, 1 << (block.bit_length() - 1)))


def inverse_norms(weight_BD: Tensor) -> Tensor:
    """1 / ‖w‖ of every row (B,)."""
    norms_B: Tensor = torch.linalg.vector_norm(weight_BD, dim=1)
    return norms_B.clamp_min(TINY).reciprocal()


def through_norm(by_unit_BD: Tensor, weight_BD: Tensor, inverse_B: Tensor) -> Tensor:
    """Gradient by unit rows ŵ = w/‖w‖ to gradient by w, in place: (g − ŵ(ŵ·g)) / ‖w‖."""
    radial_B = (by_unit_BD * weight_BD).sum(1) * inverse_B.square()
    radial_B = torch.where(inverse_B < 1 / TINY, radial_B, 0.0)  # none where the row was divided by TINY
    return by_unit_BD.addcmul_(weight_BD, radial_B[:, None], value=-1).mul_(inverse_B[:, None])


def put_targets(values_RB: Tensor, column_V: Tensor, fill_V: Tensor | float) -> None:
    """Overwrite entry `column` of the first V rows, in place; columns outside the block are left alone.

    Gathers and scatters V numbers instead of selecting rows, so that nothing waits for the device.
    """
    labelled_VB = values_RB[: len(column_V)]
    inside_V = (column_V >= 0) & (column_V < values_RB.shape[1])
    column_V1 = column_V.clamp(0, values_RB.shape[1] - 1)[:, None]
    kept_V = labelled_VB.gather(1, column_V1).squeeze(1)
    labelled_VB.scatter_(1, column_V1, torch.where(inside_V, fill_V, kept_V).to(values_RB.dtype)[:, None])
