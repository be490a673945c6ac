"""Oriented gradients against plain loops and against what light does to a photograph."""

import math

import numpy as np
import pytest
import torch

from marginface.backbones import create_backbone
from marginface.backbones.gradient import OrientedGradients


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """Smooth, so that a gradient is nowhere near the rounding of a pixel."""
    rows, columns = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    grey = torch.sin(rows / 9) * torch.cos(columns / 7) * 0.4 + 0.002 * rows
    return grey.expand(1, 3, -1, -1).double()


def smooth(x: np.ndarray, weights: tuple[int, ...]) -> np.ndarray:
    r = len(weights) // 2
    for axis in (0, 1):
        padded = np.pad(x, [(r, r) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        x = sum(w * np.take(padded, range(i, i + x.shape[axis]), axis) for i, w in enumerate(weights)) / sum(weights)
    return x


def halve(x: np.ndarray, n: int = 2) -> np.ndarray:
    return x.reshape(x.shape[0] // n, n, x.shape[1] // n, n).mean((1, 3))


def by_hand(grey: np.ndarray) -> np.ndarray:
    levels = []
    for cell in (4, 2, 1):
        grey = smooth(grey, (1, 4, 6, 4, 1))
        padded = np.pad(grey, 1, mode="edge")
        x, y = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
        for k in range(8):
            along = np.maximum(x * math.cos(k * math.pi / 4) + y * math.sin(k * math.pi / 4), 0)
            levels.append(smooth(halve(along**3 / (x**2 + y**2 + 1e-8), cell), (1, 2, 1)))
        grey = halve(grey)
    cells = np.stack(levels).reshape(3, 8, 28, 28)
    energy = (cells**2).sum(1)
    around = np.stack([[[np.pad(e, 2, mode="edge")[i : i + 5, j : j + 5].mean() for j in range(28)] for i in range(28)]
                       for e in energy])  # fmt: skip
    return np.sqrt(cells / (np.sqrt(around)[:, None] + 0.003) + 1e-6).reshape(24, 28, 28)


def test_the_formula_in_plain_steps(image: torch.Tensor) -> None:
    got = OrientedGradients().double()(image)[0].numpy()
    np.testing.assert_allclose(got, by_hand(image[0, 0].numpy() / 2), atol=1e-6)  # directions are float32


def test_brightness_changes_nothing_and_contrast_little(image: torch.Tensor) -> None:
    gradients = OrientedGradients().double()
    plain = gradients(image)
    torch.testing.assert_close(gradients(image + 0.2), plain, atol=1e-9, rtol=0)
    assert (gradients(image * 2) - plain).abs().max() < 0.1
    assert (gradients(image.flip(2)) - plain).abs().max() > 0.5


def test_precision_of_the_surroundings_does_not_matter(image: torch.Tensor) -> None:
    gradients = OrientedGradients()
    with torch.autocast("cpu", torch.bfloat16):
        inside = gradients(image.float())
    assert inside.dtype == torch.float32
    assert torch.equal(inside, gradients(image.float()))


def test_it_trains_and_saves_only_what_is_learned() -> None:
    net = create_backbone("gradient", 32, width=8, colours=4)
    out = net(torch.rand(2, 3, 112, 112) * 2 - 1)
    assert out.shape == (2, 32)
    out.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert not any("gradients" in key for key in net.state_dict())
