"""Batch norms folded into the convolutions before them: fewer passes over memory, the same embeddings. For `fast`."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


@torch.no_grad()
def fold(backbone: nn.Module, x: Tensor) -> nn.Module:
    """Folds in place, in evaluation mode; returns `backbone`. x: any batch it takes, to see what follows what.

    A norm before a convolution stays: the zeros that pad its output are no zeros of its input.
    """
    for conv, norm in _pairs(backbone.eval(), x):
        parent, _, name = _name(backbone, norm).rpartition(".")
        assert norm.running_mean is not None
        assert norm.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        setattr(backbone.get_submodule(parent), name, nn.Identity())
    return backbone


def _pairs(backbone: nn.Module, x: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output is what a batch norm is given, each called once."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is held so that its id stays its own
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: dict[nn.Module, int] = {}

    def see(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made[id(out)] = module, out
        elif isinstance(module, nn.BatchNorm2d) and id(given[0]) in made:
            pairs.append((made[id(given[0])][0], module))

    leaves = [module for module in backbone.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [leaf.register_forward_hook(see) for leaf in leaves]
    try:
        backbone(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in pairs if calls[conv] == calls[norm] == 1]


def _name(backbone: nn.Module, module: nn.Module) -> str:
    names: dict[nn.Module, str] = {other: name for name, other in backbone.named_modules()}
    return names[module]
