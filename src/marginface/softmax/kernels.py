"""Which arithmetic the block loop of `streaming.py` uses, and its small steps.

Shape legend: R rows of the batch, V of them labelled; B rows of the weight in one block; T of a tile; D features.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

from marginface.margins.base import one_of

Precision = Literal["auto", "float32", "tf32", "bfloat16"]
TINY = 1e-12  # rows of the weight shorter than this are divided by it, as in `dense.normalise`
WORTHWHILE_CLASSES = 8192  # below, bfloat16 saves less time than its rounding costs accuracy
CPU_PRODUCTS = 2**23  # bytes of a block's products, which stay in the last-level cache
CPU_ROWS = 2**25  # bytes of its rows of the weight; in smaller blocks starting an operation costs more than memory
CPU_TILE = 2**19  # numbers in a tile: 2 MB in float32, which two cores keep in their own caches
GPU_BLOCK = 2**25  # launching the operations of smaller blocks would take longer than the operations
ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product_dtype(precision: Precision, dtype: torch.dtype, device: torch.device, num_classes: int) -> torch.dtype:
    """The type in which blocks are multiplied; everything else is kept in `dtype`, float32 or wider.

    "auto" is bfloat16 where the machine multiplies it natively and there are at least 8192 classes.
    float64 is always multiplied in float64.
    """
    one_of("precision", precision, get_args(Precision))
    if dtype == torch.float64 or precision in ("float32", "tf32"):
        return dtype
    if precision == "bfloat16" or (num_classes >= WORTHWHILE_CLASSES and native_bfloat16(device)):
        return torch.bfloat16
    return dtype


@contextmanager
def rounded_inside(wanted: bool, device: torch.device) -> Iterator[None]:
    """Meanwhile float32 products may round what they multiply: TF32 on a GPU, bfloat16 on a CPU that has it."""
    before = torch.get_float32_matmul_precision()
    if wanted:
        torch.set_float32_matmul_precision("high" if device.type == "cuda" else "medium")
    try:
        yield
    finally:
        if wanted:
            torch.set_float32_matmul_precision(before)


def native_bfloat16(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def default_block(num_rows: int, num_features: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows of the weight in a block of products of `dtype`: it stays in cache on a CPU and fills a GPU."""
    if device.type == "cpu":
        block = min(CPU_PRODUCTS // (max(1, num_rows) * dtype.itemsize), CPU_ROWS // (num_features * 4))
    else:
        block = min(GPU_BLOCK // max(num_rows, num_features), 2**16)
    return max(1024, 1 << (block.bit_length() - 1))


def tiles(values_RK: Tensor, start: int = 0, stop: int | None = None) -> Iterator[slice]:
    """Rows start..stop in pieces that stay in a core's cache; in one piece on a GPU."""
    stop = len(values_RK) if stop is None else stop
    height = max(1, CPU_TILE // max(1, values_RK.shape[1])) if values_RK.device.type == "cpu" else max(1, stop)
    for first in range(start, stop, height):
        yield slice(first, min(first + height, stop))


def row_tiles(values_RK: Tensor, num_labelled: int, whole: bool) -> Iterator[slice]:
    """`tiles` of the labelled rows, then of those without label; none holds both. whole: as few as there can be."""
    for start, stop in ((0, num_labelled), (num_labelled, len(values_RK))):
        if start < stop:
            yield from [slice(start, stop)] if whole else tiles(values_RK, start, stop)


def product(left_RD: Tensor, right_BD: Tensor, out_RB: Callable[[], Tensor]) -> Tensor:
    """left @ right.T (R, B), in float32 on a CPU by oneDNN, in memory of `out` elsewhere.

    torch multiplies float32 with MKL, which takes up to twice the time on processors that are not Intel's.
    """
    if ONEDNN and left_RD.dtype == torch.float32 and left_RD.device.type == "cpu" and left_RD.numel() > 0:
        product_RB: Tensor = torch.ops.mkldnn._linear_pointwise(left_RD, right_BD, None, "none", [], "")
        return product_RB
    return torch.mm(left_RD, right_BD.T, out=out_RB())


def inverse_norms(weight_BD: Tensor) -> Tensor:
    """1 / ‖w‖ of every row (B,)."""
    norms_B: Tensor = torch.linalg.vector_norm(weight_BD, dim=1)
    return norms_B.clamp_min(TINY).reciprocal()


def measure_rows(weight_TD: Tensor, inverse_T: Tensor, unit_TD: Tensor, spare_TD: Tensor | None) -> None:
    """`inverse_norms` into `inverse`, and the rows at unit length into `unit`."""
    inverse_T.copy_(inverse_norms(weight_TD))
    shorten_rows(weight_TD, inverse_T, unit_TD, spare_TD)


def shorten_rows(weight_TD: Tensor, inverse_T: Tensor, unit_TD: Tensor, spare_TD: Tensor | None) -> None:
    """Rows times 1 / ‖w‖, rounded to the dtype of `unit`; torch would round by way of fresh memory, so by `spare`."""
    unit_TD.copy_(torch.mul(weight_TD, inverse_T[:, None], out=spare_TD))


def radial_part(by_unit_TD: Tensor, weight_TD: Tensor, inverse_T: Tensor, spare_TD: Tensor | None) -> Tensor:
    """Of the gradient by unit rows ŵ = w/‖w‖ what points along w: (ŵ·g) / ‖w‖ (T,)."""
    radial_T = torch.mul(by_unit_TD.to(weight_TD.dtype), weight_TD, out=spare_TD).sum(1) * inverse_T.square()
    return torch.where(inverse_T < 1 / TINY, radial_T, 0.0)  # none where the row was divided by TINY


def through_norm(
    by_unit_TD: Tensor, weight_TD: Tensor, inverse_T: Tensor | None, radial_T: Tensor | None, spare_TD: Tensor | None
) -> Tensor:
    """Gradient by unit rows to gradient by w: (g − ŵ(ŵ·g)) / ‖w‖; as it is where nothing was divided by the norm."""
    wide_TD = by_unit_TD.to(weight_TD.dtype)
    if inverse_T is None or radial_T is None:
        return wide_TD
    by_weight_TD = torch.addcmul(wide_TD, weight_TD, radial_T[:, None], value=-1, out=spare_TD)
    return by_weight_TD.mul_(inverse_T[:, None])


def store_gradient(
    target_TD: Tensor,
    by_unit_TD: Tensor,
    weight_TD: Tensor,
    inverse_T: Tensor | None,
    radial_T: Tensor | None,
    spare_TD: Tensor | None,
) -> None:
    """`through_norm` into `target`."""
    target_TD.copy_(through_norm(by_unit_TD, weight_TD, inverse_T, radial_T, spare_TD))


def highest(x_RD: Tensor, unit_BD: Tensor, column_V: Tensor) -> Tensor:
    """The highest product of every row with classes other than its own (R,); 0 where there are none."""
    products_RB = x_RD @ unit_BD.T
    put_targets(products_RB, column_V, float("-inf"))
    highest_R = products_RB.amax(1)
    return torch.where(highest_R.isinf(), 0.0, highest_R)


def put_targets(values_RB: Tensor, column_V: Tensor, fill_V: Tensor | float) -> None:
    """Overwrite entry `column` of the first V rows, in place; columns outside the block are left alone.

    Reads and writes V numbers instead of selecting rows, so that nothing waits for the device.
    """
    inside_V = (column_V >= 0) & (column_V < values_RB.shape[1])
    entries = torch.arange(len(column_V), device=column_V.device), column_V.clamp(0, values_RB.shape[1] - 1)
    # not scatter_, which copies all of a bfloat16 tensor twice
    values_RB[entries] = torch.where(inside_V, fill_V, values_RB[entries]).to(values_RB.dtype)


def scaled(values_RD: Tensor, factor_R: Tensor | None) -> Tensor:
    """Every row times its factor."""
    return values_RD if factor_R is None else values_RD * factor_R[:, None]


def ratio(a_V: Tensor, b_V: Tensor) -> Tensor:
    """a / b, and 0 where b is 0: a row whose loss no longer depends on other classes has no gradient at all."""
    return torch.where(b_V == 0, 0.0, a_V / torch.where(b_V == 0, 1.0, b_V))
