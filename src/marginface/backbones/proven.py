"""Backbones as a stranger's file describes them, built no further than the weights beside it prove. For `load`."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from marginface.backbones import Backbone, create_backbone
from marginface.errors import InputError
from marginface.untrusted import free_memory

PARTS = 16  # modules, parameters and buffers for each stored tensor; networks have 1.5 to 4
MOST_PARTS = 20_000  # of a network that is not compared with a file: five times the largest of timm
COMPUTED = 1 << 28  # bytes of buffers that are not stored, beyond the size of the weights
Shapes = Mapping[str, tuple[int, ...]]


def create_proven(
    backbone: str,
    num_features: int,
    options: Mapping[str, Any],
    image_size: tuple[int, int],
    shapes: Shapes,
    where: str | Path,
) -> Backbone:
    """Room for the network that `check_proven` accepts; the caller fills it. `pretrained` among the options is ignored.

    Raises InputError as `check_proven`.
    """
    options = {name: value for name, value in options.items() if name != "pretrained"}
    network = check_proven(backbone, num_features, options, image_size, shapes, where)
    stored = network.state_dict().keys()
    if all(name in stored for name, _ in network.named_buffers()):
        return network.to_empty(device="cpu")
    return create_backbone(backbone, num_features, **options)  # computes the buffers that are not stored


def check_proven(
    backbone: str,
    num_features: int,
    options: Mapping[str, Any],
    image_size: tuple[int, int],
    shapes: Shapes,
    where: str | Path,
) -> Backbone:
    """The network on the meta device, where it takes no memory. Raises InputError saying what differs.

    Its names and shapes must be those stored, and it must turn images of `image_size`, height and width, into
    `num_features` numbers. where: the weights, for messages.
    """
    told = f"{where} does not hold a {backbone} as it is described"
    with _limited(100 + PARTS * len(shapes), told), torch.device("meta"):
        network = create_backbone(backbone, num_features, **options)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if difference := _difference(expected, shapes):
        raise InputError(f"{told}: {difference}")
    computed = sum(value.nbytes for name, value in network.named_buffers() if name not in expected)
    if computed > COMPUTED + sum(4 * math.prod(shape) for shape in expected.values()):
        raise InputError(f"{told}: its tables, which are not stored, would take {computed:,} bytes")
    _check_image_size(network, backbone, num_features, image_size)
    return network


def check_room(backbone: str, num_features: int, options: Mapping[str, Any]) -> None:
    """Raise InputError for a network, of random weights, whose weights would take more memory than is free."""
    options = {name: value for name, value in options.items() if name != "pretrained"}
    with _limited(MOST_PARTS, f"{backbone} cannot be built with {options}"), torch.device("meta"):
        network = create_backbone(backbone, num_features, **options)
    needed, free = sum(value.nbytes for value in network.state_dict().values()), free_memory()
    if needed > free:
        raise InputError(
            f"{backbone} with {num_features} features and {options} needs {needed / 1e9:.1f} GB for its weights, and "
            f"{free / 1e9:.1f} GB are free; take a smaller one"
        )


def _difference(expected: Shapes, found: Shapes) -> str:
    """The first thing that differs, and how many more do; "" where nothing does."""
    rows = [f"{name} {_listed(shape)} is missing" for name, shape in expected.items() if name not in found]
    rows += [
        f"{name} is {_listed(found[name])} instead of {_listed(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    rows += [f"{_printable(name)} {_listed(found[name])} is none of its weights" for name in found.keys() - expected]
    more = f" ({len(rows) - 1} more differences)" if len(rows) > 1 else ""
    return f"{rows[0]}{more}" if rows else ""


def _check_image_size(network: Backbone, backbone: str, num_features: int, image_size: tuple[int, int]) -> None:
    """Raise InputError where the network does not take these images: tried on the meta device, which computes nothing.

    Only where they are not the network's own, as timm's that average may take any; to try costs two seconds once.
    """
    if image_size == network.image_size:
        return
    height, width = image_size
    try:
        with torch.no_grad():
            fits = network.eval()(torch.empty(2, 3, height, width, device="meta")).shape == (2, num_features)
    except Exception:  # whatever a network says of images it does not take
        fits = False
    network.train()
    if not fits:
        takes = "x".join(map(str, network.image_size))
        raise InputError(f"{backbone} does not take images of {height}x{width} pixels, but of {takes}")


@contextmanager
def _limited(most: int, told: str) -> Iterator[None]:
    """Within, building a network of more than `most` modules, parameters and buffers ends with InputError `told`."""
    thread, count = get_ident(), 0

    def see(module: nn.Module, name: str, part: Any) -> None:
        nonlocal count
        count += get_ident() == thread
        if count > most:
            raise InputError(f"{told}: that one has many more layers")

    hooks = [
        register(see)
        for register in (
            register_module_module_registration_hook,
            register_module_parameter_registration_hook,
            register_module_buffer_registration_hook,
        )
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _listed(shape: tuple[int, ...]) -> str:
    return f"{list(shape[:8])}"


def _printable(name: str) -> str:
    return name if name.isprintable() and len(name) <= 100 else f"{name!r:.100}"
