"""The fastest way through a network that keeps its embeddings: bfloat16, by OpenVINO or compiled. For `embed`."""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from marginface.backbones.folding import fold
from marginface.backbones.openvino_run import OpenVinoRun, from_torch

Network = Callable[[Tensor], Tensor]

COSINE = 0.9995  # to float32, of every image tried
TRIED = 8  # images the ways are compared on
OPENVINO_FROM = 1000  # images that win back the 3 to 6 s of trying OpenVINO, where it is installed
COMPILE_FROM = 6000  # images that win back the 20 to 60 s of compiling on two cores
COMPILE_PAST_OPENVINO = 30_000  # the same where OpenVINO leads, which compiled code may beat by a tenth
RECOMPILE = 6  # times fewer are enough where an earlier run left the compiled code on the disk
FASTER = 1.05  # times; below it, what is there stays, so that equals do not change places from run to run
PROCESS = 256  # networks that a process may compile
FLOAT32, BFLOAT16, COMPILED = "float32, channels last", "bfloat16, channels last", "bfloat16, compiled"
OPENVINO = {"f32": "float32, OpenVINO", "bf16": "bfloat16, OpenVINO"}


class FastPath:
    """Chooses once for a network with these weights, by what its embeddings of real images come out as.

    name: the way chosen last. seconds: what making and trying ways cost this process.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone, self.name, self.seconds = backbone, FLOAT32, 0.0
        self._stamp = stamp(backbone)
        self._keeps: bool | None = None  # whether bfloat16 keeps the embeddings; None = not tried
        self._half: nn.Module | None = None
        self._openvino: Network | None = None
        self._tried_openvino = False
        self._compiled: Network | None = None
        self._shape: torch.Size | None = None  # what it was compiled for, or should have been

    def is_stale(self) -> bool:
        """Whether the weights have changed or moved since, or torch uses another number of threads."""
        return stamp(self.backbone) != self._stamp

    def network(self, x: Tensor, images: int) -> Network:
        """The network for a batch like `x`, float (N, 3, H, W), of `images` in all; `backbone` must be in eval mode."""
        if self._keeps is None:
            self._keeps = native_bfloat16(x.device) and agree(self.bfloat16, self.backbone, x[:TRIED])
        if self._worth_trying_openvino(x, images):
            self.try_openvino(x)
        if self._worth_compiling(x, images):
            self.compile(x)
        if self._compiled is not None and x.shape == self._shape:
            self.name = COMPILED
            return self._compiled
        network, name = self._for_any_batch()
        if self._compiled is None:  # else the last batch is a smaller one
            self.name = name
        return network

    def _for_any_batch(self) -> tuple[Network, str]:
        if self._openvino is not None:
            return self._openvino, OPENVINO["bf16" if self._keeps else "f32"]
        return (self.bfloat16, BFLOAT16) if self._keeps else (self.backbone, FLOAT32)

    def bfloat16(self, x: Tensor) -> Tensor:
        """Convolutions in bfloat16, the embedding layer in float32."""
        if self._half is None:
            self._half = _with_half_convolutions(self.backbone, x[:1])
        with torch.autocast(x.device.type, torch.bfloat16):
            out: Tensor = self._half(x)
        return out.float()

    def try_openvino(self, x: Tensor) -> Network | None:
        """The network in OpenVINO, for any batch size, in bfloat16 where that keeps the embeddings.

        None where OpenVINO is not installed, changes the embeddings, or is not the faster one here.
        """
        start, self._tried_openvino = time.perf_counter(), True
        torchs, _ = self._for_any_batch()
        try:
            run = OpenVinoRun(from_torch(self.backbone, x[:1]), "bf16" if self._keeps else "f32")
            agrees = agree(run, self.backbone, x[:TRIED]) and agree(run, self.backbone, x[:1])
            if agrees and is_faster(run, torchs, x[:TRIED]):
                self._openvino = run
        except Exception:  # whatever another runtime may lack here, torch remains
            self._openvino = None
        self.seconds += time.perf_counter() - start
        return self._openvino

    def compile(self, x: Tensor) -> Network | None:
        """The network compiled for batches of exactly this size, its weights constants of the code.

        None where there is no compiler, the embeddings would change, or OpenVINO is faster.
        """
        start, self._shape = time.perf_counter(), x.shape
        self.bfloat16(x[:1])  # makes the copy that is compiled
        compiled: Network = torch.compile(self.bfloat16, dynamic=False, options={"freezing": True})
        try:
            # torch counts what it compiles by function, and this one is every network's of the process
            with torch._dynamo.config.patch(cache_size_limit=PROCESS):
                takes = agree(compiled, self.bfloat16, x)
                takes = takes and (self._openvino is None or is_faster(compiled, self._openvino, x))
        except Exception:  # whatever a compiler may lack here, the other ways remain
            takes = False
        self.seconds += time.perf_counter() - start
        if takes:
            self._compiled = compiled
            file = marker(self.backbone, x)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return self._compiled

    def _worth_trying_openvino(self, x: Tensor, images: int) -> bool:
        """Once, and never for a handful of images; it takes what float32 it is given from the CPU."""
        return not self._tried_openvino and images >= OPENVINO_FROM and x.device.type == "cpu"

    def _worth_compiling(self, x: Tensor, images: int) -> bool:
        """Only in bfloat16, for the batch's full size, once, and never for a handful of images."""
        enough = COMPILE_FROM if self._openvino is None else COMPILE_PAST_OPENVINO
        if not self._keeps or self._shape is not None or images * RECOMPILE < enough:
            return False
        return images >= enough or marker(self.backbone, x).is_file()


def _with_half_convolutions(backbone: nn.Module, x: Tensor) -> nn.Module:
    """A copy with batch norms folded, whose convolutions keep their weights in bfloat16: autocast would convert them
    for every batch."""
    half = fold(copy.deepcopy(backbone).eval(), x).to(memory_format=torch.channels_last)
    for module in half.modules():
        if isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)
    return half


def native_bfloat16(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def marker(backbone: nn.Module, x: Tensor) -> Path:
    """An empty file that tells that torch's cache holds this network's code: beside that cache, and lost with it."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # slow to import, and rarely needed

    known = f"{torch.__version__} {backbone} {tuple(x.shape)} {x.device.type}"
    return Path(cache_dir()) / "marginface" / hashlib.sha256(known.encode()).hexdigest()[:24]


def tensors(backbone: nn.Module) -> Iterator[Tensor]:
    return chain(backbone.parameters(), backbone.buffers())


def stamp(backbone: nn.Module) -> list[tuple[int, int]]:
    """Changes whenever a weight is written or moved, and with torch's threads, whose number is built into code."""
    return [(0, torch.get_num_threads()), *((value.data_ptr(), value._version) for value in tensors(backbone))]


@torch.no_grad()
def agree(network: Network, reference: Network, x: Tensor) -> bool:
    """Whether every embedding's cosine to the reference's is COSINE or more."""
    cosines = nn.functional.cosine_similarity(network(x).float(), reference(x).float())
    return bool(torch.isfinite(cosines).all() and cosines.min() >= COSINE)


@torch.no_grad()
def is_faster(network: Network, other: Network, x: Tensor) -> bool:
    """Whether `network` beats `other` by more than FASTER, each at its best of three, in turns; both are warm."""
    best = {network: math.inf, other: math.inf}
    for _ in range(3):
        for way in best:
            start = time.perf_counter()
            way(x)
            best[way] = min(best[way], time.perf_counter() - start)
    return best[network] * FASTER < best[other]
