"""What the photographer does to a procedural face: backdrop, light, camera. Called by `synthetic_render`.

Shapes and units as in `synthetic_scene`.
"""

import cv2
import numpy as np

from marginface.readers.synthetic_scene import Scene, positive
from marginface.readers.synthetic_traits import Array

_NOISE = np.random.Generator(np.random.PCG64(0)).standard_normal((512, 512, 3), dtype=np.float32)


def background(scene: Scene) -> None:
    t, size = scene.t, scene.canvas.shape[-1]
    along, across = _ramp(t["back_angle"], size), _ramp(t["back_angle"] * 2.7, size)
    wave = np.sin(along * t["back_wave"] + t["back_phase"] + np.sin(across * (9 - t["back_wave"])))
    scene.canvas[:] = t["back_rgb"]
    scene.paint(np.clip(wave * (t["back_hard"] * 0.5) + 0.5, 0, 1), t["back2_rgb"])


def light(scene: Scene, head: Array, hair: Array) -> None:
    """One lamp, the sky, and a little gloss, on the slopes of the depth map."""
    t, depth = scene.t, scene.depth
    depth += hair * (1.15 * np.sqrt(positive(1.7 - scene.rho * scene.rho)) - depth)
    right, down = np.zeros_like(depth), np.zeros_like(depth)
    np.subtract(depth[:, :, 2:], depth[:, :, :-2], out=right[:, :, 1:-1])
    np.subtract(depth[:, 2:], depth[:, :-2], out=down[:, 1:-1])
    for slope in (right, down):
        slope *= 0.5 * scene.px
        np.clip(slope, -1.8, 1.8, out=slope)
    steep = right * right
    steep += down * down
    steep += 1
    steep = 1 / np.sqrt(steep, out=steep)
    far = 1 / np.sqrt(t["light_x"] ** 2 + t["light_y"] ** 2 + t["light_z"] ** 2)
    x, y, z = t["light_x"] * far, t["light_y"] * far, t["light_z"] * far
    facing = (z - right * x - down * y) * steep
    lamp = positive(facing * 0.85 + 0.15) * t["key"]
    sky = (0.75 + (0.25 + 0.125 * down) * steep) * t["ambient"]
    gloss = positive(facing + steep) * (1 / np.sqrt(2 + 2 * z))
    for _ in range(4):
        gloss *= gloss
    left = 1 - np.minimum(scene.ink, 0.95) * (1 - hair)
    shade, gloss = 1 + head * ((lamp + sky) * left - 1), gloss * head * left * (t["key"] * t["gloss"])
    for channel in range(3):
        scene.canvas[:, channel] *= shade
        scene.canvas[:, channel] += gloss


def block(scene: Scene) -> None:
    """Something in the way: a hand, a scarf, the edge of a door."""
    size = scene.canvas.shape[-1]
    for i in np.flatnonzero(scene.t["block"] < 0.12):
        t = scene.t[i]
        along, across = _ramp(t["block_angle"], size), _ramp(t["block_angle"] + np.float32(np.pi / 2), size)
        mask = np.clip((along - 0.52 + 0.42 * t["block_size"] + 1.6 * across * across) * size + 0.5, 0, 1)
        colour = t["block_rgb"] * (0.8 + 0.4 * t["key"] * np.clip(across + 0.5, 0, 1))
        scene.canvas[i] += mask * (colour - scene.canvas[i])


def develop(scene: Scene) -> Array:
    """Exposure, white balance, gamma, blur and noise: linear canvas to RGB uint8 (B, H, W, 3)."""
    t, pictures = scene.t, scene.canvas
    balance = np.concatenate([1 + t["warm_n"], 1 + t["tint_n"], 1 - t["warm_n"]], axis=1)[..., None]
    pictures *= 255**2 * balance * np.exp(2 * t["exposure_n"])[:, None]
    np.sqrt(np.clip(pictures, 0, 1.2 * 255**2, out=pictures), out=pictures)
    for i in np.flatnonzero(t["grey"] > 0):
        pictures[i] += t["grey"][i] * (pictures[i].mean(axis=0) - pictures[i])
    pictures += 255 * t["haze"][:, None] + 0.5
    size = pictures.shape[-1]
    out = np.empty((len(pictures), size, size, 3), np.uint8)
    for picture, shot, target in zip(pictures, t, out, strict=True):
        image: Array = cv2.merge(list(picture))
        if shot["blur"] > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), float(shot["blur"][0, 0]) * size / 112)
        image += _grain(size, shot["noise_x"][0, 0], shot["noise_y"][0, 0]) * (255 * shot["noise"][0, 0])
        target[:] = np.clip(image, 0, 255, out=image)
    return out


def _grain(size: int, x: float, y: float) -> Array:
    """A piece of one sheet of noise, which costs a tenth of fresh noise."""
    left, top = int(x * (512 - size)), int(y * (512 - size))
    grain: Array = _NOISE[top : top + size, left : left + size]
    return grain


def _ramp(angle: Array, size: int) -> Array:
    """Rises by 1 over the length of the frame in a direction, 0 in the middle."""
    grid = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    rising: Array = np.cos(angle) * grid + np.sin(angle) * grid[:, None]
    return rising
