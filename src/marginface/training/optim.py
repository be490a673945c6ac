"""Optimiser and learning rate: parameter groups, schedules as pure functions of the step, weight average."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from marginface.errors import InputError
from marginface.ranges import check_numbers
from marginface.weights.parts import is_split, own

FUSED = ("cpu", "cuda")  # devices that have kernels for a whole update
LAYER_STEPS = 8  # so many different learning rates between the first layer and the last, at most


@dataclass
class OptimConfig:
    """How the weights move.

    Args:
        name: the optimiser
        lr: peak learning rate
        scale_lr: multiply lr by global batch / 512, the papers' rule
        momentum: of SGD
        weight_decay: L2 decay per step of what `decayed` names
        decayed: matrices: weight matrices and kernels only; all-but-batch-norms: biases, PReLU and other norms too, as
            AdaFace; all: every parameter, as most of the papers' code
        schedule: what follows the warm-up
        warmup_epochs: linear rise to lr, from the rate of one step on; a fraction is fine
        milestones: multistep: epochs at which lr is multiplied by gamma
        gamma: multistep: the factor
        power: poly: lr x (1 - progress)^power
        final_lr: cosine: share of lr left at the end
        clip_norm: gradients of the backbone are scaled down to this L2 norm; 0 = off
        ema: decay of the averaged weights that are evaluated and exported; 0 = off
        first_layer: share of lr at the network's first layer; it rises geometrically to 1 at the embedding layer,
            the classes have 1; for fine-tuning, such as 0.1
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    scale_lr: bool = False
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decayed: Literal["matrices", "all-but-batch-norms", "all"] = "matrices"
    schedule: Literal["constant", "multistep", "poly", "cosine"] = "poly"
    warmup_epochs: float = 0.0
    milestones: list[float] = field(default_factory=list)
    gamma: float = 0.1
    power: float = 2.0
    final_lr: float = 0.0
    clip_norm: float = 0.0
    ema: float = 0.0
    first_layer: float = 1.0

    def __post_init__(self) -> None:
        shares = {"momentum": "[0, 1)", "ema": "[0, 1)", "final_lr": "[0, 1]", "first_layer": "(0, 1]"}
        check_numbers(self, "optim", lr="(0, inf)", **shares)
        if self.schedule == "multistep" and not self.milestones:
            raise InputError("optim.schedule is multistep but optim.milestones is empty: give epochs, such as [10,20]")
        if self.milestones != sorted(self.milestones):
            raise InputError(f"optim.milestones {self.milestones} must rise")


def learning_rate(config: OptimConfig, epoch: float, epochs: float) -> float:
    """Learning rate at `epoch` (a real number: step / steps per epoch) of `epochs`, before `scale_lr`."""
    if epoch < config.warmup_epochs:
        return config.lr * epoch / config.warmup_epochs
    progress = (epoch - config.warmup_epochs) / max(epochs - config.warmup_epochs, 1e-12)
    match config.schedule:
        case "multistep":
            passed = sum(epoch >= milestone for milestone in config.milestones)
            factor: float = config.gamma**passed
        case "poly":
            factor = max(1 - progress, 0.0) ** config.power
        case "cosine":
            floor = config.final_lr
            factor = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        case "constant":
            factor = 1.0
    return config.lr * factor


def parameter_groups(backbone: nn.Module, head: nn.Module, config: OptimConfig) -> list[dict[str, object]]:
    """Groups of one weight decay and one `lr_share` each.

    `config.decayed` says what decays; "matrices" is everything of more than one dimension. `lr_share` is
    what `layer_shares` says, 1 for the head. Weights that are split over processes have groups of their own.
    """
    shares = layer_shares(backbone, config.first_layer)
    batch_norms = {p for m in backbone.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for parameter in (*backbone.parameters(), *head.parameters()):
        if parameter.requires_grad:
            decayed = {
                "matrices": parameter.ndim > 1,
                "all-but-batch-norms": parameter not in batch_norms,
                "all": True,
            }[config.decayed]
            kind = (shares.get(parameter, 1.0), decayed, is_split(parameter))
            groups.setdefault(kind, []).append(parameter)
    ordered = sorted(groups.items(), key=lambda group: (-group[0][0], not group[0][1], group[0][2]))
    return [
        {
            "params": params,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "lr_share": share,
            **({"fused": False, "foreach": True} if split else {}),  # the kernels do not know weights that are split
        }
        for (share, decayed, split), params in ordered
    ]


def layer_shares(backbone: nn.Module, first: float) -> dict[nn.Parameter, float]:
    """Share of the learning rate of every parameter: `first` at the first layer, 1 at the last, geometric between.

    Layers are counted in the order the network names them, in LAYER_STEPS steps, so that groups stay few.
    """
    layers = [list(module.parameters(recurse=False)) for module in backbone.modules()]
    layers = [parameters for parameters in layers if parameters]
    shares: dict[nn.Parameter, float] = {}
    for number, parameters in enumerate(layers):
        depth = round(LAYER_STEPS * number / max(len(layers) - 1, 1)) / LAYER_STEPS
        shares |= dict.fromkeys(parameters, first ** (1 - depth))
    return shares


def create_optimizer(backbone: nn.Module, head: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW over all parameters that are not frozen."""
    groups = parameter_groups(backbone, head, config)
    # one pass over memory: 2 to 4 times as fast on a CPU; on a GPU it can also leave out a step, see `step_if_finite`
    fused = True if next(backbone.parameters()).device.type in FUSED else None
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)


def gradient_norm(module: nn.Module, clip: float) -> Tensor:
    """L2 norm of all gradients of a module, a scalar on its device; they are scaled down to `clip` unless it is 0.

    Of a network that is split it is the whole network's, on all processes.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
    if clip:
        norm = nn.utils.clip_grad_norm_(parameters, clip)
    else:
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    return norm.full_tensor() if is_split(norm) else norm


def step_if_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """One update; weights and the optimiser's state stay as they are where `norm` is not finite.

    optimizer: made by `create_optimizer`; on a GPU its kernel decides, and nobody waits, but for split networks.
    """
    if norm.is_cuda and all(group["fused"] for group in optimizer.param_groups):
        inner: Any = getattr(optimizer, "optimizer", optimizer)  # Fabric's is a shell around torch's
        inner.found_inf = (~torch.isfinite(norm)).float()  # as torch.amp tells the kernel
        optimizer.step()
    elif math.isfinite(norm):
        optimizer.step()


class WeightAverage:
    """Exponential moving average of a module's parameters and float buffers (so batch-norm statistics too).

    `module` is the averaged copy. The decay grows from 0.1 as (1 + n) / (10 + n), so that early averages are
    not dominated by the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, values = [], []
        for average, value in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if value.is_floating_point():
                averages.append(own(average))
                values.append(own(value))
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - keep)
