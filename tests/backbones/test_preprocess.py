"""Pixels to network input."""

import torch

from marginface.backbones.preprocess import normalise


def test_range_is_minus_one_to_one_exactly() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    expected = (torch.arange(256).double() - 127.5) / 127.5
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        got = normalise(pixels, dtype=dtype)
        # rounded once, so equal to the rounded truth
        assert torch.equal(got[0, 1].flatten(), expected.to(dtype))
    assert normalise(pixels).min() == -1
    assert normalise(pixels).max() == 1


def test_channels_stay_rgb_and_memory_channels_last() -> None:
    pixels = torch.randint(0, 256, (4, 112, 96, 3), dtype=torch.uint8)
    got = normalise(pixels, mean=0, std=255)
    assert got.shape == (4, 3, 112, 96)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((got[:, 2] * 255).round().byte(), pixels[..., 2])


def test_input_is_left_alone() -> None:
    pixels = torch.full((1, 2, 2, 3), 7, dtype=torch.uint8)
    normalise(pixels)
    assert (pixels == 7).all()
