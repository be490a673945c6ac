"""Random numbers that depend on (seed, epoch, record, place) alone: every draw is a hash. For `augment`."""

import math
from typing import TypeVar

import numpy as np

Draws = np.ndarray  # float64 in [0, 1)
Number = TypeVar("Number", float, np.ndarray)


def between(low: float, high: float, u: Number) -> Number:
    return low + (high - low) * u


def factor(width: float, u: Draws) -> Draws:
    """1 / (1 + width) for u = 0, 1 for u = 1/2, 1 + width for u = 1."""
    return (1 + width) ** (2 * u - 1)


def uniform(indices: np.ndarray, epoch: int, seed: int, count: int) -> Draws:
    """(N, count) numbers in [0, 1), a hash of (seed, epoch, index, column)."""
    state = hashed(np.full(1, seed % 2**64, np.uint64))
    for value in (np.full(1, epoch, np.uint64), indices.astype(np.uint64)[:, None], np.arange(count, dtype=np.uint64)):
        state = hashed(state + value)
    return np.asarray((state >> 11) * 2.0**-53)


def more(u: float, count: int) -> Draws:
    """(count,) numbers in [0, 1) made of one of them, for what needs many and is rare."""
    return np.asarray((_bits(u, count) >> 11) * 2.0**-53)


def noise(u: float, shape: tuple[int, ...]) -> np.ndarray:
    """Random uint8 of this shape made of one number in [0, 1)."""
    size = math.prod(shape)
    return _bits(u, -(-size // 8)).view(np.uint8)[:size].reshape(shape)


def _bits(u: float, count: int) -> np.ndarray:
    return hashed(np.uint64(u * 2**53) + np.arange(count, dtype=np.uint64))


def hashed(x: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea, Flood 2014): one well-mixed number for each; overflow is meant."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> 27)) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> 31)
    return mixed
