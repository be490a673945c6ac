"""Random changes of training images, drawn per record and epoch, never per thread or batch. Called by the loader."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

from marginface.errors import InputError

Images = np.ndarray  # RGB uint8
Draws = np.ndarray  # float64 in [0, 1)

GREY = np.array([0.299, 0.587, 0.114])  # luma of RGB, ITU-R BT.601


@dataclass
class AugmentConfig:
    """How training images are changed, in this order. The default is a mirror image half of the time.

    Args:
        flip: probability of a mirror image
        geometric: probability of turning, scaling, stretching and shifting the face, around black
        rotate: largest turn in degrees, either way
        scale: sizes between 1 / (1 + scale) and 1 + scale
        stretch: the same for width over height
        shift: largest shift as a share of the side
        photometric: probability of changing brightness, contrast and gamma
        brightness: largest change as a share of white
        contrast: largest relative change
        gamma: exponents between 1 / (1 + gamma) and 1 + gamma
        colour: probability of changing saturation (factor 0.5 to 1.5) and white balance (each channel by 15 %)
        grey: probability of taking the colour away
        side_light: probability of light from one side, up to 1.6 times brighter there and darker opposite
        blur: probability of a Gaussian blur
        blur_sigma: its largest width in pixels
        low_res: probability of scaling down and up again
        low_res_side: smallest share of the side it is scaled down to
        cut_out: probability of covering a rectangle with one colour
        cut_out_area: its largest share of the image
    """

    flip: float = 0.5
    geometric: float = 0.0
    rotate: float = 12.0
    scale: float = 0.1
    stretch: float = 0.06
    shift: float = 0.05
    photometric: float = 0.0
    brightness: float = 0.12
    contrast: float = 0.35
    gamma: float = 0.4
    colour: float = 0.0
    grey: float = 0.0
    side_light: float = 0.0
    blur: float = 0.0
    blur_sigma: float = 1.8
    low_res: float = 0.0
    low_res_side: float = 0.3
    cut_out: float = 0.0
    cut_out_area: float = 0.25

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            limit = 1.0 if field.name not in ("rotate", "scale", "stretch", "gamma", "blur_sigma") else np.inf
            if not 0 <= value <= limit:
                raise InputError(f"data.augment.{field.name} is {value}: give a number from 0 to {limit:g}")


def augment(
    images: Images | Sequence[Images], indices: np.ndarray, epoch: int, seed: int, config: AugmentConfig
) -> Images:
    """Changed copies of `images`.

    images: RGB uint8 (N, H, W, 3), or N arrays (H, W, 3) of one size. indices: (N,), which records they are.
    Returns RGB uint8 (N, H, W, 3). What happens to an image depends on (seed, epoch, index) alone.
    """
    out = np.empty((len(images), *np.shape(images[0])), np.uint8) if len(images) else np.asarray(images)
    draws = _uniform(np.asarray(indices), epoch, seed, count=32)
    for image, draw, row in zip(images, draws, out, strict=True):
        row[:] = _augment_one(image, draw, config)
    return out


def _augment_one(image: Images, u: Draws, c: AugmentConfig) -> Images:
    """Every operation has its own draws, so that switching one on leaves the others as they were."""
    if u[0] < c.flip:
        image = np.ascontiguousarray(image[:, ::-1])
    if u[1] < c.geometric:
        image = _move(image, u[2:8], c)
    if u[8] < c.photometric:
        image = _tone(image, u[9:12], c)
    if u[12] < c.colour:
        image = _colour(image, u[13:17])
    if u[17] < c.grey:
        image = cv2.transform(image, np.tile(GREY, (3, 1)))
    if u[18] < c.side_light:
        image = _side_light(image, u[19:21])
    if u[21] < c.blur:
        image = cv2.GaussianBlur(image, (0, 0), max(c.blur_sigma * u[22], 0.1))
    if u[23] < c.low_res:
        image = _low_resolution(image, c.low_res_side + (1 - c.low_res_side) * u[24])
    if u[25] < c.cut_out:
        image = _cut_out(image, u[26:32], c)
    return image


def _move(image: Images, u: Draws, c: AugmentConfig) -> Images:
    height, width = image.shape[:2]
    angle = np.deg2rad(_between(-c.rotate, c.rotate, u[0]))
    scale, stretch = _factor(c.scale, u[1]), np.sqrt(_factor(c.stretch, u[2]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn * [stretch, 1 / stretch]
    centre = np.array([width - 1, height - 1]) / 2
    shift = _between(-c.shift, c.shift, u[3:5]) * [width, height]
    offset = centre + shift - matrix @ centre
    return cv2.warpAffine(image, np.column_stack([matrix, offset]), (width, height), flags=cv2.INTER_LINEAR)


def _tone(image: Images, u: Draws, c: AugmentConfig) -> Images:
    """Gamma, contrast about the middle and brightness as one look-up table."""
    tone = np.linspace(0, 1, 256) ** _factor(c.gamma, u[0])
    tone = (tone - 0.5) * (1 + _between(-c.contrast, c.contrast, u[1])) + 0.5
    tone += _between(-c.brightness, c.brightness, u[2])
    return cv2.LUT(image, np.clip(np.rint(tone * 255), 0, 255).astype(np.uint8))


def _colour(image: Images, u: Draws) -> Images:
    """Saturation and white balance as one 3×3 matrix."""
    saturation = _between(0.5, 1.5, u[0])
    mix = saturation * np.eye(3) + (1 - saturation) * np.tile(GREY, (3, 1))
    balance = np.array([_factor(0.15, value) for value in u[1:4]])
    return cv2.transform(image, balance[:, None] * mix)


def _side_light(image: Images, u: Draws) -> Images:
    height, width = image.shape[:2]
    angle, strength = 2 * np.pi * u[0], 0.5 * u[1]
    across = np.exp(strength * np.cos(angle) * np.linspace(-1, 1, width, dtype=np.float32))
    down = np.exp(strength * np.sin(angle) * np.linspace(-1, 1, height, dtype=np.float32))
    light = cv2.merge([np.outer(down, across)] * 3)
    return cv2.multiply(image, light, dtype=cv2.CV_8U)


def _low_resolution(image: Images, share: float) -> Images:
    height, width = image.shape[:2]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))


def _cut_out(image: Images, u: Draws, c: AugmentConfig) -> Images:
    """One rectangle, 1:2 to 2:1, of the image's mean or of any colour."""
    height, width = image.shape[:2]
    area, ratio = c.cut_out_area * u[0] * height * width, _factor(1.0, u[1])
    h, w = min(height, round(np.sqrt(area * ratio))), min(width, round(np.sqrt(area / ratio)))
    top, left = int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1))
    image = image.copy()
    colour = cv2.mean(image)[:3] if u[4] < 0.5 else _hash(np.uint64(u[5] * 2**53) + np.arange(3, dtype=np.uint64)) >> 56
    image[top : top + h, left : left + w] = np.asarray(colour).astype(np.uint8)
    return image


def _between(low: float, high: float, u: Draws) -> Draws:
    return low + (high - low) * u


def _factor(width: float, u: Draws) -> Draws:
    """1 / (1 + width) for u = 0, 1 for u = 1/2, 1 + width for u = 1."""
    return (1 + width) ** (2 * u - 1)


def _uniform(indices: np.ndarray, epoch: int, seed: int, count: int) -> Draws:
    """(N, count) numbers in [0, 1), a hash of (seed, epoch, index, column)."""
    state = _hash(np.full(1, seed % 2**64, np.uint64))
    for value in (np.full(1, epoch, np.uint64), indices.astype(np.uint64)[:, None], np.arange(count, dtype=np.uint64)):
        state = _hash(state + value)
    return np.asarray((state >> 11) * 2.0**-53)


def _hash(x: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea, Flood 2014): one well-mixed number for each; overflow is meant."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> 27)) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> 31)
    return mixed
