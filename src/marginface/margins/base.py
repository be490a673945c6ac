"""What a margin is: four small questions about a cosine. Engines in `softmax/` ask, every file here answers.

Shape legend: N rows of the batch (V of them valid: label in [0, C)), C classes, K classes of one block.

How an engine asks, once per training step, on the gathered (global) batch:

    margin.update(cos_y_V, norms_V)              # training only; valid rows only, detached; before target
    bent_V = margin.target(cos_y_V, norms_V)     # valid rows only; differentiable in both arguments
    scale_V = margin.row_scale(norms_V)          # (V,); differentiable in norms where `scale_from_norm`
    cos_VK = margin.negatives(cos_VK, cos_y_V, bent_V)  # any classes; identity unless `bends_negatives`
    logits: scale * bent for the target class, scale * cos for the others
    loss = mean over the valid rows of cross-entropy  +  margin.regulariser(norms_V)
    margin.observe(log_others_V)                 # training only, where `observes_others`; after the pass

`negatives` is elementwise in K, and differentiable in its first argument only: `cos_y` and `bent` count as
constants there, in every paper. It may be given the target column too: the engine overwrites it with `bent`.
All maths is in float32 or wider. `normalised = False` (plain softmax) tells engines to use raw products x·w
(+ bias_C, owned by the head, if `margin.bias`) instead of cosines. Losses without a softmax (SphereFace2,
UniFace) are in `binary.py`.
"""

from collections.abc import Callable
from typing import ClassVar, Literal, NotRequired, Self, TypedDict, Unpack

import torch
from torch import Tensor, nn

from marginface.errors import InputError
from marginface.margins.ranges import positive, share

MarginGrad = Literal["true", "straight_through"]


class MarginOptions(TypedDict):
    """Options that every margin takes besides its own parameters.

    margin_grad: "true" differentiates the bent cosine; "straight_through" passes the gradient of the plain
        cosine (d logit/d cos = s). Default: what the paper's own code does.
    interclass_filter: cosines of other classes above this are set to 0 (off at 0); against label noise
        (InsightFace, `interclass_filtering_threshold`).
    cos_clamp: all cosines are first clamped to ±(1 − cos_clamp); off at 0. A clamped cosine has no gradient,
        unless it is straight-through.
    """

    margin_grad: NotRequired[MarginGrad]
    interclass_filter: NotRequired[float]
    cos_clamp: NotRequired[float]


class CountsOnHost(nn.Module):
    """Keeps the counters named in `on_host` in the host's memory wherever the module goes.

    They decide what is drawn in a step, and to read a number from a device is to wait for it.
    """

    on_host: ClassVar[tuple[str, ...]] = ("step",)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = {name: self._buffers[name] for name in self.on_host}
        move: Callable[..., Self] = super()._apply
        move(fn, recurse)
        self._buffers.update(kept)
        return self


class Margin(nn.Module):
    """Base of all margins; by itself it bends nothing (`s·cos`). A margin overrides `bend`, seldom more."""

    default_grad: ClassVar[MarginGrad] = "true"
    normalised: ClassVar[bool] = True  # False: raw products instead of cosines
    reads_norms: ClassVar[bool] = False  # True: norms_N must be given
    norms_tell_quality: ClassVar[bool] = False  # True: the norm of an embedding comes to tell the image's quality
    scale_from_norm: ClassVar[bool] = False  # True: row_scale has a gradient
    observes_others: ClassVar[bool] = False  # True: engines call observe after each training pass
    bias: bool = False
    strength: float  # share of the margin, 0 to 1: a training loop that lets the margin grow sets it every step

    def __init__(self, s: float = 64.0, **options: Unpack[MarginOptions]) -> None:
        super().__init__()
        self.scale = positive("s", s)
        self.margin_grad: MarginGrad = options.get("margin_grad", self.default_grad)
        self.interclass_filter = share("interclass_filter", options.get("interclass_filter", 0.0))
        self.cos_clamp = share("cos_clamp", options.get("cos_clamp", 0.0))
        self.strength = 1.0
        one_of("margin_grad", self.margin_grad, ("true", "straight_through"))

    # What a margin answers.

    def bend(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        """The bent target cosine (N,), differentiable; `target` deals with clamping and straight-through."""
        return cos_N

    def bend_negatives(self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor) -> Tensor:
        """The other classes' cosines (N, K) after clamping and filtering; elementwise in K."""
        return cos_NK

    def bend_negatives_(
        self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor, spare_NK: Tensor, slope_NK: Tensor | None
    ) -> None:
        """`bend_negatives` in place and its derivative in `slope`; a margin that cares for speed writes it out.

        torch.where takes 20 times as long as arithmetic on a CPU, so masks are 0.0 and 1.0: torch.gt(..., out=spare).
        """
        self._negatives_by_autograd_(cos_NK, cos_y_N, bent_N, slope_NK)

    def row_scale(self, norms_N: Tensor) -> Tensor:
        """The scale s of every row (N,)."""
        return torch.full_like(norms_N, self.scale, requires_grad=False)

    def regulariser(self, norms_N: Tensor) -> Tensor:
        """A scalar added to the loss; computed from the norms of the valid rows."""
        return norms_N.new_zeros(())

    @torch.no_grad()
    def update(self, cos_y_N: Tensor, norms_N: Tensor) -> None:
        """Advance adaptive state, once per training step, from the valid rows of the global batch."""

    @torch.no_grad()
    def observe(self, log_others_N: Tensor) -> None:
        """Take log Σ_{j≠y} exp(logit_j) of the valid rows after a training pass (AdaCos)."""

    # What engines call.

    @property
    def bends_negatives(self) -> bool:
        """False where `negatives` is the identity, so that engines may skip it."""
        overridden = type(self).bend_negatives is not Margin.bend_negatives
        return overridden or self.interclass_filter > 0 or self.cos_clamp > 0

    @property
    def written_out(self) -> bool:
        """Whether `negatives_` is plain arithmetic in place, which can be compiled, and asks nothing of autograd."""
        if type(self).bend_negatives is Margin.bend_negatives:
            return True
        own_way = type(self).bend_negatives_ is not Margin.bend_negatives_
        return own_way and self.interclass_filter == 0 and self.cos_clamp == 0

    def target(self, cos_N: Tensor, norms_N: Tensor) -> Tensor:
        """The target cosine after the margin: (N,) -> (N,), float32 or wider."""
        cos_N = self._clamp(at_least_float32(cos_N))
        bent_N = self.bend(cos_N, at_least_float32(norms_N))
        if self.strength < 1:
            bent_N = cos_N + self.strength * (bent_N - cos_N)
        if self.margin_grad == "straight_through":
            return cos_N + (bent_N - cos_N).detach()
        return bent_N

    def negatives(self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor) -> Tensor:
        """The other classes' cosines after clamp, inter-class filter and margin: (N, K) -> (N, K)."""
        cos_NK = self.clean(at_least_float32(cos_NK))
        return self.bend_negatives(cos_NK, at_least_float32(cos_y_N).detach(), bent_N.detach())

    def negatives_(
        self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor, spare_NK: Tensor, slope_NK: Tensor | None
    ) -> None:
        """`negatives` in place, for engines; `slope` receives its derivative where it is given, `spare` anything."""
        if type(self).bend_negatives is Margin.bend_negatives:
            self.clean_(cos_NK, spare_NK, slope_NK)
        elif self.written_out:
            self.bend_negatives_(cos_NK, cos_y_N, bent_N, spare_NK, slope_NK)
        else:
            self._negatives_by_autograd_(cos_NK, cos_y_N, bent_N, slope_NK)

    def clean_(self, cos_NK: Tensor, spare_NK: Tensor, slope_NK: Tensor | None) -> None:
        """`clean` in place, as `negatives_`."""
        if slope_NK is not None:
            slope_NK.fill_(1.0)
        if self.cos_clamp > 0:
            if slope_NK is not None and self.margin_grad == "true":
                torch.le(torch.abs(cos_NK, out=spare_NK), 1 - self.cos_clamp, out=slope_NK)
            cos_NK.clamp_(self.cos_clamp - 1, 1 - self.cos_clamp)
        if self.interclass_filter > 0:
            cos_NK.mul_(torch.le(cos_NK, self.interclass_filter, out=spare_NK))
            if slope_NK is not None:
                slope_NK.mul_(spare_NK)

    def _negatives_by_autograd_(self, cos_NK: Tensor, cos_y_N: Tensor, bent_N: Tensor, slope_NK: Tensor | None) -> None:
        with torch.enable_grad():
            leaf_NK = cos_NK.clone().requires_grad_()
            bent_NK = self.negatives(leaf_NK, cos_y_N, bent_N)
        if slope_NK is not None:  # elementwise, so the gradient of the sum is the derivative of each
            slope_NK.copy_(torch.autograd.grad(bent_NK, leaf_NK, torch.ones_like(bent_NK))[0])
        cos_NK.copy_(bent_NK.detach())

    def clean(self, cos_NK: Tensor) -> Tensor:
        """Clamping and inter-class filtering alone: what happens to a row without a label."""
        cos_NK = self._clamp(cos_NK)
        if self.interclass_filter > 0:
            return torch.where(cos_NK > self.interclass_filter, 0.0, cos_NK)
        return cos_NK

    def forward(self, cos_NC: Tensor, labels_N: Tensor, norms_N: Tensor | None = None) -> Tensor:
        """Dense cosines to logits, for use in any training loop.

        Args:
            cos_NC: cosines (raw products for `softmax`), any float dtype.
            labels_N: int64 or int32; rows labelled outside [0, C), e.g. -1, get no margin (loss: `ignore_index=-1`).
            norms_N: norms of the embeddings; needed by SphereFace, MagFace and AdaFace.

        Returns: logits (N, C), float32 or wider. In training mode the adaptive state advances by one step.
        """
        labels_N = class_indices(labels_N, len(cos_NC))
        if norms_N is None:
            if self.reads_norms:
                raise InputError(f"{type(self).__name__} reads the norms of the embeddings; pass norms_N.")
            norms_N = cos_NC.new_ones(len(cos_NC))
        cos_NC, norms_N = at_least_float32(cos_NC), at_least_float32(norms_N)
        rows_V = valid_rows(labels_N, cos_NC.shape[1])
        cos_VC, norms_V, labels_V = cos_NC[rows_V], norms_N[rows_V], labels_N[rows_V]
        cos_y_V = cos_VC.gather(1, labels_V[:, None]).squeeze(1)
        if self.training:
            self.update(cos_y_V.detach(), norms_V.detach())
        bent_V = self.target(cos_y_V, norms_V)
        bent_VC = self.negatives(cos_VC, cos_y_V, bent_V).scatter(1, labels_V[:, None], bent_V[:, None])
        logits_NC = self.row_scale(norms_N)[:, None] * self.clean(cos_NC).index_copy(0, rows_V, bent_VC)
        if self.training and self.observes_others:
            self.observe(log_others(logits_NC[rows_V].detach(), labels_V))
        return logits_NC

    def _clamp(self, cos: Tensor) -> Tensor:
        if self.cos_clamp <= 0:
            return cos
        clamped = cos.clamp(self.cos_clamp - 1, 1 - self.cos_clamp)
        return cos + (clamped - cos).detach() if self.margin_grad == "straight_through" else clamped


def angle(cos: Tensor) -> Tensor:
    """θ = arccos(cos) in [0, π] with a derivative that is finite everywhere.

    The value is exact to rounding, also at ±1 and beyond; the derivative −1/sin θ becomes −sin θ where
    sin² θ < 1e-9, i.e. within 3e-5 rad of 0 and π.
    """
    sin2 = (1 - cos) * (1 + cos)  # not 1 − cos²: exact near ±1
    safe = torch.where(sin2 < 1e-9, 1.0, sin2).sqrt()
    sin = torch.where(sin2 < 1e-9, sin2.detach().clamp_min(0.0).sqrt(), safe)
    return torch.atan2(sin, cos)


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 to float32; wider types as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def class_indices(labels: Tensor, count: int) -> Tensor:
    """Return int64 labels (count,) of an int32 or int64 tensor; raise InputError for anything else."""
    wanted = f"labels must be an int64 tensor of one class index per row, ({count},)"
    if not isinstance(labels, Tensor):
        raise InputError(f"{wanted}, not a {type(labels).__name__}: torch.as_tensor(labels) makes one.")
    if labels.dtype not in (torch.int64, torch.int32):
        raise InputError(f"{wanted}, not {labels.dtype}: labels.long() makes one.")
    if labels.shape != (count,):
        raise InputError(f"{wanted}, not of shape {tuple(labels.shape)}.")
    return labels.long()


def valid_rows(labels_N: Tensor, num_classes: int) -> Tensor:
    """Indices (V,) of the rows whose label is a class."""
    return ((labels_N >= 0) & (labels_N < num_classes)).nonzero().squeeze(1)


def log_others(logits_VC: Tensor, labels_V: Tensor) -> Tensor:
    """log Σ_{j≠y} exp(logit_j) of every row; -inf with a single class."""
    return logits_VC.scatter(1, labels_V[:, None], float("-inf")).logsumexp(1)


def one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is among the valid words."""
    if value not in valid:
        raise InputError(f"{name} must be one of {', '.join(valid)}, not {value!r}.")
