"""Random changes of training images, drawn per record and epoch, never per thread or batch. Called by the loader."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

from marginface.loading import published
from marginface.loading.draws import Draws, between, factor, hashed, uniform
from marginface.loading.published import GREY
from marginface.ranges import check_numbers

Images = np.ndarray  # RGB uint8
OPERATIONS = ("geometric", "photometric", "colour", "grey", "side_light", "blur", "low_res", "cut_out")
PUBLISHED = (
    *("adaface_crop", "adaface_low_res", "adaface_photometric", "openvino_cut_out", "openvino_rotation"),
    *("openvino_blur", "motion_blur", "jpeg", "erasing"),
)


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
        adaface_crop: probability that only a part stays, 20 to 100 % of the area, at its place on black
        adaface_low_res: probability of scaling to 20 to 100 % of the side and back, by any of five interpolations
        adaface_photometric: probability of brightness, contrast and saturation by factors of 0.5 to 1.5
        openvino_cut_out: probability of covering one to three of the five points with black
        openvino_rotation: probability of a turn of up to 10 degrees either way
        openvino_blur: probability of the mean of 5 by 5 pixels
        motion_blur: probability of a blur along a line of 3 to 9 pixels
        jpeg: probability of JPEG compression, quality 30 to 95
        erasing: probability of a box of noise over 2 to 40 % of the area (random erasing)
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
    adaface_crop: float = 0.0
    adaface_low_res: float = 0.0
    adaface_photometric: float = 0.0
    openvino_cut_out: float = 0.0
    openvino_rotation: float = 0.0
    openvino_blur: float = 0.0
    motion_blur: float = 0.0
    jpeg: float = 0.0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        ranges = {field.name: "[0, 1]" for field in fields(self)} | {"rotate": "[0, 180]"}
        check_numbers(
            self, "data.augment", **ranges | dict.fromkeys(("scale", "stretch", "gamma", "blur_sigma"), "[0, 100]")
        )


def augment(
    images: Images | Sequence[Images],
    indices: np.ndarray,
    epoch: int,
    seed: int,
    config: AugmentConfig,
    out: Images | None = None,
) -> Images:
    """Changed copies of `images`.

    images: RGB uint8 (N, H, W, 3), or N arrays (H, W, 3) of one size. indices: (N,), which records they are.
    out: where they go, which may be `images` itself.
    Returns RGB uint8 (N, H, W, 3). What happens to an image depends on (seed, epoch, index) alone.
    """
    if out is None:
        out = np.empty((len(images), *np.shape(images[0])), np.uint8) if len(images) else np.asarray(images)
    if out is not images:
        for row, image in zip(out, images, strict=True):
            row[:] = image
    early, later = (any(getattr(config, name) for name in names) for names in (OPERATIONS, PUBLISHED))
    draws = uniform(np.asarray(indices), epoch, seed, count=64 if later else 32)
    for position in np.flatnonzero(draws[:, 0] < config.flip).tolist():
        cv2.flip(out[position], 1, out[position])  # numpy takes ten times as long, and keeps the other threads waiting
    if not early and not later:
        return out
    for row, draw in zip(out, draws, strict=True):
        changed = _augment_one(row, draw, config) if early else row
        if later:
            changed = _published(changed, draw, config)
        if changed is not row:
            row[:] = changed
    return out


def _augment_one(image: Images, u: Draws, c: AugmentConfig) -> Images:
    """Every operation but the flip. Each has its own draws, so that switching one on leaves the others as they were."""
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


def _published(image: Images, u: Draws, c: AugmentConfig) -> Images:
    if u[32] < c.adaface_crop:
        image = published.adaface_crop(image, u[33])
    if u[34] < c.adaface_low_res:
        image = published.adaface_low_res(image, u[35:38])
    if u[38] < c.adaface_photometric:
        image = published.adaface_photometric(image, u[39:43])
    if u[43] < c.openvino_cut_out:
        image = published.openvino_cut_out(image, u[44:53])
    if u[53] < c.openvino_rotation:
        image = published.openvino_rotation(image, u[54])
    if u[55] < c.openvino_blur:
        image = published.openvino_blur(image)
    if u[56] < c.motion_blur:
        image = published.motion_blur(image, u[57:59])
    if u[59] < c.jpeg:
        image = published.jpeg(image, u[60])
    if u[61] < c.erasing:
        image = published.erasing(image, u[62:64])
    return image


def _move(image: Images, u: Draws, c: AugmentConfig) -> Images:
    height, width = image.shape[:2]
    angle = np.deg2rad(between(-c.rotate, c.rotate, u[0]))
    scale, stretch = factor(c.scale, u[1]), np.sqrt(factor(c.stretch, u[2]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn * [stretch, 1 / stretch]
    centre = np.array([width - 1, height - 1]) / 2
    shift = between(-c.shift, c.shift, u[3:5]) * [width, height]
    offset = centre + shift - matrix @ centre
    return cv2.warpAffine(image, np.column_stack([matrix, offset]), (width, height), flags=cv2.INTER_LINEAR)


def _tone(image: Images, u: Draws, c: AugmentConfig) -> Images:
    """Gamma, contrast about the middle and brightness as one look-up table."""
    tone = np.linspace(0, 1, 256) ** factor(c.gamma, u[0])
    tone = (tone - 0.5) * (1 + between(-c.contrast, c.contrast, u[1])) + 0.5
    tone += between(-c.brightness, c.brightness, u[2])
    return cv2.LUT(image, np.clip(np.rint(tone * 255), 0, 255).astype(np.uint8))


def _colour(image: Images, u: Draws) -> Images:
    """Saturation and white balance as one 3×3 matrix."""
    saturation = between(0.5, 1.5, u[0])
    mix = saturation * np.eye(3) + (1 - saturation) * np.tile(GREY, (3, 1))
    balance = np.array([factor(0.15, value) for value in u[1:4]])
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
    area, ratio = c.cut_out_area * u[0] * height * width, factor(1.0, u[1])
    h, w = min(height, round(np.sqrt(area * ratio))), min(width, round(np.sqrt(area / ratio)))
    top, left = int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1))
    image = image.copy()
    any_colour = hashed(np.uint64(u[5] * 2**53) + np.arange(3, dtype=np.uint64)) >> 56
    colour = cv2.mean(image)[:3] if u[4] < 0.5 else any_colour
    image[top : top + h, left : left + w] = np.asarray(colour).astype(np.uint8)
    return image
