"""Changes of images as AdaFace, OpenVINO and random erasing publish them, and two of the camera. For `augment`.

Each takes RGB uint8 (H, W, 3) and draws from [0, 1), and returns another array of that shape.
"""

import itertools
import math

import cv2
import numpy as np
import simplejpeg

from marginface.faces.template import template
from marginface.loading.draws import Draws, between, more, noise

GREY = np.array([0.299, 0.587, 0.114])  # luma of RGB, ITU-R BT.601
RESAMPLINGS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
ORDERS = tuple(itertools.permutations(range(3)))
PLACES = template(112, "openvino") / 112
Box = tuple[int, int, int, int]  # top, left, height, width


def adaface_crop(image: np.ndarray, u: float) -> np.ndarray:
    """A part of the picture stays where it is, all else is black (Kim et al. 2022)."""
    top, left, height, width = crop_box(image.shape[0], image.shape[1], u)
    out = np.zeros_like(image)
    out[top : top + height, left : left + width] = image[top : top + height, left : left + width]
    return out


def crop_box(height: int, width: int, u: float) -> Box:
    """The box of torchvision's RandomResizedCrop: 20 to 100 % of the area, sides 3:4 to 4:3, ten tries."""
    draws = more(u, 40).tolist()
    for area, ratio, y, x in zip(*[iter(draws)] * 4, strict=True):
        size = between(0.2, 1.0, area) * height * width
        sides = math.exp(between(math.log(3 / 4), math.log(4 / 3), ratio))
        h, w = round(math.sqrt(size / sides)), round(math.sqrt(size * sides))
        if 0 < h <= height and 0 < w <= width:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def adaface_low_res(image: np.ndarray, u: Draws) -> np.ndarray:
    """Down to a square of 20 to 100 % of the height and up again, each way by one of five interpolations. u: (3,)."""
    height, width = image.shape[:2]
    side = max(1, int(between(0.2, 1.0, u[0]) * height))
    down, up = (RESAMPLINGS[int(len(RESAMPLINGS) * draw)] for draw in u[1:3])
    return cv2.resize(cv2.resize(image, (side, side), interpolation=down), (width, height), interpolation=up)


def adaface_photometric(image: np.ndarray, u: Draws) -> np.ndarray:
    """Brightness, contrast and saturation by factors of 0.5 to 1.5, in any order (torchvision's ColorJitter). u: (4,).

    AdaFace's own code draws on BGR, which changes what saturation takes for grey; here it is the luma of RGB.
    """
    for step in ORDERS[int(len(ORDERS) * u[3])]:
        strength = float(between(0.5, 1.5, u[step]))
        if step == 2:
            mix = strength * np.eye(3) + (1 - strength) * np.tile(GREY, (3, 1))
            image = cv2.transform(image, mix)
        else:
            middle = 0 if step == 0 else int(np.dot(cv2.mean(image)[:3], GREY) + 0.5)
            image = cv2.LUT(image, _blend(middle, strength))
    return image


def _blend(middle: int, strength: float) -> np.ndarray:
    """Pillow's table: away from `middle` or towards it, cut to whole numbers."""
    table: np.ndarray = np.clip(middle + strength * (np.arange(256) - middle), 0, 255).astype(np.uint8)
    return table


def openvino_cut_out(image: np.ndarray, u: Draws) -> np.ndarray:
    """Black over 1 to 3 of the five points, the patches together at most 10 % of the area. u: (9,).

    n patches of sides sqrt(r) / n with r from 5 to 10 %, where that trainer's template has the points.
    """
    height, width = image.shape[:2]
    count = 1 + int(3 * u[0])
    image = image.copy()
    for place, share in zip(np.argsort(u[1:6])[:count], u[6:9], strict=False):
        side = math.sqrt(between(0.05, 0.1, share)) / count
        x, y = PLACES[place] * [width, height]
        h, w = round(side * height), round(side * width)
        top, left = round(y - h / 2), round(x - w / 2)
        image[max(0, top) : top + h, max(0, left) : left + w] = 0
    return image


def openvino_rotation(image: np.ndarray, u: float) -> np.ndarray:
    """A turn of up to 10° either way about the middle, Lanczos, black outside."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(between(-10, 10, u)), 1)
    return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_CONSTANT)


def openvino_blur(image: np.ndarray) -> np.ndarray:
    """The mean of 5×5 pixels."""
    return cv2.blur(image, (5, 5))


def motion_blur(image: np.ndarray, u: Draws) -> np.ndarray:
    """The camera moves by 3, 5, 7 or 9 pixels in any direction. u: (2,)."""
    length = 3 + 2 * int(4 * u[0])
    level = np.zeros((length, length), np.float32)
    level[length // 2] = 1
    middle = (length - 1) / 2
    line = cv2.warpAffine(level, cv2.getRotationMatrix2D((middle, middle), 180 * float(u[1]), 1), (length, length))
    return cv2.filter2D(image, -1, line / line.sum())


def jpeg(image: np.ndarray, u: float) -> np.ndarray:
    """What JPEG of quality 30 to 95, colours at half the resolution, leaves of it."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=30 + int(66 * u), colorsubsampling="420")
    decoded: np.ndarray = simplejpeg.decode_jpeg(data)
    return decoded


def erasing(image: np.ndarray, u: Draws) -> np.ndarray:
    """A box of noise: 2 to 40 % of the area, sides 0.3 to 1 / 0.3 (Zhong et al. 2020, Algorithm 1). u: (2,)."""
    top, left, height, width = erasing_box(image.shape[0], image.shape[1], u[0])
    image = image.copy()
    image[top : top + height, left : left + width] = noise(u[1], (height, width, image.shape[2]))
    return image


def erasing_box(height: int, width: int, u: float) -> Box:
    """Drawn until it fits; a box that is empty after 25 tries, which one in 10^19 is."""
    draws = more(u, 100).tolist()
    for area, ratio, y, x in zip(*[iter(draws)] * 4, strict=True):
        size, sides = between(0.02, 0.4, area) * height * width, between(0.3, 1 / 0.3, ratio)
        h, w = int(math.sqrt(size * sides)), int(math.sqrt(size / sides))
        if h < height and w < width:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    return 0, 0, 0, 0
