"""The training head: class weights, a margin and an engine. The training loop calls `head(embeddings, labels)`.

Shape legend: N rows of this rank's batch; G rows of the global batch, R of them taking part, V of these
labelled; D features; C classes of all ranks; S classes of this rank drawn for a step.
"""

from typing import Literal, NamedTuple, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from marginface.errors import InputError
from marginface.margins.base import CountsOnHost, Margin, class_indices, one_of
from marginface.margins.binary import BinaryMargin
from marginface.softmax.binary import binary_logits, binary_loss
from marginface.softmax.classes import Classes, CollectedGradient, WeightSink
from marginface.softmax.dense import dense_logits, dense_loss, directions
from marginface.softmax.kernels import Precision, default_block, product_dtype
from marginface.softmax.objective import Contest, CrossEntropy, Objective
from marginface.softmax.one_vs_rest import OneVsRest
from marginface.softmax.sampled import choose_classes, columns_of, draw_scores
from marginface.softmax.sharded import Shards
from marginface.softmax.streaming import Step, StreamedLoss
from marginface.softmax.update import DrawnGradient, FusedSGD, FusedUpdate, LastDraw, show_drawn_rows
from marginface.softmax.workspace import Workspace

Unlabelled = Literal["ignore", "negatives", "none"]
INIT_STD = 0.01  # InsightFace, ElasticFace, CurricularFace
INIT_CHUNK = 1024  # classes initialised from one seed, so that the weights do not depend on the number of ranks


class LastStep(NamedTuple):
    """Of the labelled rows of the global batch: cosine to the own class and norm (V,), and what decided the loss."""

    cosines_V: Tensor
    norms_V: Tensor
    contest: Contest | None


class MarginSoftmax(CountsOnHost):
    """Softmax loss with a margin over any number of classes, without ever keeping an N×C tensor.

    Args:
        num_features: D, length of an embedding.
        num_classes: C, identities over all ranks.
        margin: from `marginface.margins.create_margin`.
        sample_rate: Partial FC: share of the classes that take part in a step; the labels always do.
        block_size: classes handled at a time; None chooses by batch size and device.
        sub_centers: weights per class, the nearest counts (Sub-center ArcFace).
        process_group: split the classes over its ranks. Every rank brings equally many rows; the loss is that
            of the global batch and equal on all ranks. The gradient of the embeddings is multiplied by the
            number of ranks, because DistributedDataParallel averages it afterwards. None: this process alone.
        label_smoothing: as torch.nn.functional.cross_entropy.
        focal_gamma: γ of focal weighting (1 − p)^γ; 0 is off.
        precision: of the blocks' products: "float32"; "tf32": float32 that may be rounded inside the product (TF32
            on a GPU, bfloat16 on a CPU that has it); "bfloat16" (sums stay float32); or "auto": bfloat16 where the
            machine multiplies it natively and there are at least 8192 classes, else float32.
        engine: "streaming", or "dense": plain autograd over the N×C matrix, for checks; one process only.
        unlabelled: rows with a negative label are left out ("ignore"), or pushed away from all classes and
            counted in the mean, with no row reporting a loss above −log 1e-30 ("negatives", PartialFC_V2), or there
            are "none", as the caller knows: only then does nothing wait for the device to count them.
        compile: let torch.compile make one loop of each of the passes over a block of weights. Needs a C++ compiler on
            a CPU and Triton on a GPU, and costs half a minute in the first step, less once torch has cached the code.
        seed: of the classes drawn when sample_rate < 1.

    `weight` is this rank's shard, (classes·sub_centers, D), N(0, 0.01) from torch's seed. `last` tells of the last
    step's labelled rows, `mean_cosine` (to the own class) and `mean_norm` (of the embeddings) of their means; tensors,
    so that nothing waits. The dense engine tells nothing.
    """

    step: Tensor

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        margin: Margin | BinaryMargin,
        *,
        sample_rate: float = 1.0,
        block_size: int | None = None,
        sub_centers: int = 1,
        process_group: dist.ProcessGroup | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        precision: Precision = "auto",
        engine: Literal["streaming", "dense"] = "streaming",
        unlabelled: Unlabelled = "ignore",
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.num_features, self.num_classes, self.margin = num_features, num_classes, margin
        self.sample_rate, self.block_size, self.sub_centers = sample_rate, block_size, sub_centers
        self.label_smoothing, self.focal_gamma = label_smoothing, focal_gamma
        self.precision: Precision = precision
        self.engine, self.seed = engine, seed
        self.unlabelled: Unlabelled = unlabelled
        self.shards = Shards(num_classes, process_group)
        self._check()
        num_local = self.shards.stop - self.shards.start
        self.weight = nn.Parameter(torch.empty(num_local * sub_centers, num_features))
        has_bias = isinstance(margin, Margin) and margin.bias
        self.bias = nn.Parameter(torch.zeros(num_local * sub_centers)) if has_bias else None
        self.fused: FusedSGD | None = None
        self.last_draw: LastDraw | None = None  # where gradients are to be sparse
        self._workspace = Workspace(compile)
        self._bending = Workspace(compile and margin.written_out)  # of passes which the margin has a part in
        self.register_buffer("step", torch.zeros((), dtype=torch.long, device="cpu"))
        self.last: LastStep | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 0.01) from torch's seed, the same for a class whatever the number of ranks; bias 0."""
        base = int(torch.randint(2**62, ()))
        rows = INIT_CHUNK * self.sub_centers
        first, last = self.shards.start * self.sub_centers, self.shards.stop * self.sub_centers
        with torch.no_grad():
            for start in range(first - first % rows, last, rows):
                generator = torch.Generator().manual_seed((base + start) % 2**63)
                chunk = torch.randn(rows, self.num_features, generator=generator) * INIT_STD
                begin, end = max(first, start), min(last, start + rows)
                self.weight[begin - first : end - first] = chunk[begin - start : end - start]
            if self.bias is not None:
                self.bias.zero_()

    def fuse_sgd(self, lr: float, momentum: float = 0.9, weight_decay: float = 5e-4) -> FusedSGD:
        """Let every backward pass update `weight` at once, as torch.optim.SGD would; it then has no `.grad`.

        Returns the settings: set `lr` on them before a step to follow a schedule. Not together with gradient
        accumulation, clipping of these weights or a GradScaler, which need the gradient before the update.
        """
        if "momentum" not in self._buffers:
            self.register_buffer("momentum", torch.zeros_like(self.weight, requires_grad=False))
        self.fused = FusedSGD(lr, momentum, weight_decay)
        return self.fused

    def update_drawn(self, optimizer: torch.optim.Optimizer) -> None:
        """Let `optimizer` move the drawn classes alone: weights and state of the others rest, and do not decay.

        For sample_rate < 1 with any optimiser of torch, as PartialFC and PartialFCAdamW do; call it once, after
        making the optimiser. `weight.grad` is then sparse; gradients of several backward passes may be added.
        """
        self.last_draw = show_drawn_rows(optimizer, self.weight)

    def forward(self, x_ND: Tensor, labels_N: Tensor) -> Tensor:
        """Mean loss of the global batch plus the margin's regulariser, a scalar in float32 or wider.

        Args:
            x_ND: embeddings, un-normalised, any float dtype.
            labels_N: int64 or int32 in [0, num_classes); negative labels are treated as `unlabelled` says.

        Raises InputError for a label of num_classes or more, or shapes that do not fit.
        """
        labels_N = self._checked_labels(x_ND, labels_N)
        with torch.autocast(x_ND.device.type, enabled=False):
            if self.engine == "dense":
                return self._dense_loss(x_ND, labels_N)
            x_GD, labels_G = self.shards.gather_rows(x_ND), self.shards.gather_labels(labels_N)
            rows_R, num_labelled = self._rows(labels_G)
            x_RD = x_GD[rows_R].to(self._dtype)
            unit_RD, norms_R = directions(x_RD)
            step = self._step(labels_G[rows_R[:num_labelled]], len(rows_R))
            rows_RD = unit_RD if step.normalised else x_RD
            loss: Tensor
            loss, cos_V = StreamedLoss.apply(rows_RD, norms_R, self.weight, self.bias, step, *self.margin.parameters())
            self.last = LastStep(cos_V.detach(), norms_R[:num_labelled].detach(), step.objective.contest())
        return loss

    @torch.no_grad()
    def logits(self, x_ND: Tensor, labels_N: Tensor) -> Tensor:
        """Logits (N, C) after margin and scale, for study: dense, no gradient, adaptive state left alone."""
        self._refuse_shards("logits")
        labels_N = self._checked_labels(x_ND, labels_N)
        x_ND = x_ND.to(self._dtype)
        if isinstance(self.margin, BinaryMargin):
            return binary_logits(x_ND, self.weight, labels_N, self.margin)
        training = self.margin.training
        self.margin.eval()
        try:
            return dense_logits(
                x_ND, self.weight, labels_N, self.margin, bias_C=self.bias, sub_centers=self.sub_centers
            )
        finally:
            self.margin.train(training)

    @property
    def mean_cosine(self) -> Tensor:
        return self._mean_of_last("cosines_V")

    @property
    def mean_norm(self) -> Tensor:
        return self._mean_of_last("norms_V")

    def _mean_of_last(self, name: str) -> Tensor:
        """0 before the first step, and where no row was labelled."""
        values_V = self.weight.new_zeros(0) if self.last is None else getattr(self.last, name)
        return values_V.sum().detach() / max(1, len(values_V))

    @torch.no_grad()
    def lead(self, last: LastStep) -> tuple[Tensor, Tensor]:
        """By how much the own class of every row is ahead of all others together (V,): with the margin, without it.

        In logits; above 0 its probability is above one half. Without a softmax: of the threshold it has to pass.
        """
        if isinstance(self.margin, BinaryMargin):
            return self.margin.positive(last.cosines_V), self.margin.negative(last.cosines_V)
        assert last.contest is not None
        targets_V, scales_V, others_V = last.contest
        return scales_V * targets_V - others_V, scales_V * last.cosines_V - others_V

    def extra_repr(self) -> str:
        return f"{self.num_features}, {self.num_classes}, sample_rate={self.sample_rate}, engine={self.engine!r}"

    def _rows(self, labels_G: Tensor) -> tuple[Tensor, int]:
        """Rows that take part, labelled ones first, and how many are labelled."""
        if self.unlabelled == "none":
            return torch.arange(len(labels_G), device=labels_G.device), len(labels_G)
        labelled = labels_G >= 0
        rows_V = labelled.nonzero().squeeze(1)
        if self.unlabelled == "ignore":
            return rows_V, len(rows_V)
        return torch.cat((rows_V, (~labelled).nonzero().squeeze(1))), len(rows_V)

    def _step(self, labels_V: Tensor, num_rows: int) -> Step:
        inside_V = (labels_V >= self.shards.start) & (labels_V < self.shards.stop)
        column_V = torch.where(inside_V, labels_V - self.shards.start, -1)
        index_S = None
        if self.sample_rate < 1:
            index_S = self._draw(column_V)
            column_V = columns_of(column_V, index_S)
        device = self.weight.device
        dtype = product_dtype(self.precision, self._dtype, device, self.num_classes)
        block_size = self.block_size
        if block_size is None:
            block_size = max(1, default_block(num_rows, self.num_features, dtype, device) // self.sub_centers)
        return Step(
            objective=self._objective(index_S),
            classes=Classes(self.weight, self.bias, index_S, self.sub_centers, block_size),
            shards=self.shards,
            column_V=column_V,
            product_dtype=dtype,
            rounded=self.precision == "tf32",
            normalised=isinstance(self.margin, BinaryMargin) or self.margin.normalised,
            open_sink=self._open_sink if self.weight.requires_grad else None,
            workspace=self._workspace,
        )

    def _objective(self, index_S: Tensor | None) -> Objective:
        if isinstance(self.margin, BinaryMargin):
            return OneVsRest(self.margin, self._bending)
        num_columns: int | Tensor = self.num_classes
        if index_S is not None and self.label_smoothing > 0:
            num_columns = self.shards.sum(torch.full((), len(index_S), device=index_S.device))
        partial_fc = self.unlabelled == "negatives"
        return CrossEntropy(self.margin, self._bending, num_columns, self.label_smoothing, self.focal_gamma, partial_fc)

    @property
    def _dtype(self) -> torch.dtype:
        """Of all arithmetic but the blocks' products."""
        return torch.promote_types(self.weight.dtype, torch.float32)

    def _draw(self, column_V: Tensor) -> Tensor:
        """Partial FC: local classes that take part, sorted. A new draw for every training step."""
        num_local = self.shards.stop - self.shards.start
        if self.training:
            self.step += 1
        seed = (self.seed * 1_000_003 + int(self.step)) * 65_537 + self.shards.rank
        scores_C = draw_scores(num_local, seed % 2**63, self.weight.device)
        return choose_classes(scores_C, column_V, int(self.sample_rate * num_local))

    def _open_sink(self) -> WeightSink:
        if self.fused is not None:
            return FusedUpdate(self.weight, self.get_buffer("momentum"), self.fused, self._workspace)
        if self.last_draw is not None:
            return DrawnGradient(self.weight, self._workspace, self.last_draw)
        return CollectedGradient(self.weight, self._workspace)

    def _dense_loss(self, x_ND: Tensor, labels_N: Tensor) -> Tensor:
        x_ND = x_ND.to(self._dtype)
        if isinstance(self.margin, BinaryMargin):
            return binary_loss(x_ND, self.weight, labels_N, self.margin)
        return dense_loss(
            x_ND,
            self.weight,
            labels_N,
            self.margin,
            bias_C=self.bias,
            sub_centers=self.sub_centers,
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
        )

    def _check(self) -> None:
        one_of("engine", self.engine, ("streaming", "dense"))
        one_of("unlabelled", self.unlabelled, get_args(Unlabelled))
        one_of("precision", self.precision, get_args(Precision))
        block_size = 1 if self.block_size is None else self.block_size
        if min(self.num_features, self.num_classes, self.sub_centers, block_size) < 1:
            raise InputError("num_features, num_classes, sub_centers and block_size must be at least 1.")
        if not 0 < self.sample_rate <= 1:
            raise InputError(f"sample_rate must be above 0 and at most 1, not {self.sample_rate}.")
        if self.engine == "dense":
            self._refuse_shards("engine='dense'")
            if self.sample_rate < 1 or self.unlabelled == "negatives":
                raise InputError("engine='dense' takes neither sample_rate below 1 nor unlabelled='negatives'.")
        if isinstance(self.margin, BinaryMargin):
            self._check_binary()

    def _check_binary(self) -> None:
        """There is no softmax to smooth, to focus or to shift; the dense formula knows no sub-centers."""
        if self.label_smoothing or self.focal_gamma or self.unlabelled == "negatives" or self.sub_centers > 1:
            raise InputError(
                f"{type(self.margin).__name__} takes no label_smoothing, focal_gamma, sub_centers or unlabelled."
            )

    def _refuse_shards(self, what: str) -> None:
        if self.shards.size > 1:
            raise InputError(f"{what} needs all classes in one process; this head is split over {self.shards.size}.")

    def _checked_labels(self, x_ND: Tensor, labels_N: Tensor) -> Tensor:
        """The labels in int64; raises InputError for embeddings or labels that do not fit this head."""
        if not isinstance(x_ND, Tensor) or not x_ND.is_floating_point() or x_ND.shape[1:] != (self.num_features,):
            given = f"{x_ND.dtype} {tuple(x_ND.shape)}" if isinstance(x_ND, Tensor) else type(x_ND).__name__
            raise InputError(f"embeddings must be a floating-point tensor (N, {self.num_features}), not {given}.")
        labels_N = class_indices(labels_N, len(x_ND))
        if labels_N.is_cuda:  # do not wait for the device: the assertion fails there
            torch._assert_async((labels_N < self.num_classes).all())
        elif len(labels_N) and int(labels_N.max()) >= self.num_classes:
            row = int(labels_N.argmax())
            raise InputError(f"label {int(labels_N[row])} of row {row} is not below num_classes {self.num_classes}.")
        return labels_N
