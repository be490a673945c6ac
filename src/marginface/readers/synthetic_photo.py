"""What the photographer does to a procedural face: backdrop, light, camera. Called by `synthetic_render`.

Shapes and units as in `synthetic_scene`.
"""

import cv2
import numpy as np

from marginface.readers.synthetic_scene import Scene, ramp, ripple, share
from marginface.readers.synthetic_traits import Array

_NOISE = np.random.Generator(np.random.PCG64(0)).standard_normal((512, 512, 3), dtype=np.float32)


def background(scene: Scene) -> None:
    t, size = scene.t, scene.canvas.shape[-1]
    wave = ripple(*_rise(t["back_angle"] * 2.7, size, 9 - t["back_wave"]))
    along_x, along_y = _rise(t["back_angle"], size, t["back_wave"])
    wave += ramp(along_x, along_y + t["back_phase"])
    np.sin(wave, out=wave)
    wave *= t["back_hard"] * 0.5
    wave += 0.5
    np.multiply(share(wave)[:, None], t["back2_rgb"] - t["back_rgb"], out=scene.canvas)
    scene.layers["canvas"] += t["back_rgb"]


def light(scene: Scene, head: Array, hair: Array) -> None:
    """One lamp, the sky, and a little gloss, on the slopes of the depth map."""
    t = scene.t
    far = 1 / np.sqrt(t["light_x"] ** 2 + t["light_y"] ** 2 + t["light_z"] ** 2)
    x, y, z = t["light_x"] * far, t["light_y"] * far, t["light_z"] * far
    right, down = _slopes(scene, hair)
    steep = right * right
    gloss = down * down
    steep += gloss
    steep += 1
    np.sqrt(steep, out=steep)
    np.divide(1, steep, out=steep)
    right *= -x
    right -= np.multiply(down, y, out=gloss)
    right += z
    right *= steep
    np.add(right, steep, out=gloss)
    # lamp + sky = max(0.85 facing + 0.15, 0) key + (0.75 + (0.25 + 0.125 down) steep) ambient
    shade = right.clip(-0.15 / 0.85, np.inf, out=right)
    shade *= 0.85 * t["key"]
    shade += 0.15 * t["key"] + 0.75 * t["ambient"]
    down *= 0.125 * t["ambient"]
    down += 0.25 * t["ambient"]
    down *= steep
    shade += down
    lit = scene.ink.clip(0, 0.95)
    lit *= np.subtract(1, hair, out=steep)
    np.subtract(1, lit, out=lit)
    lit *= head
    shade *= lit
    shade += np.subtract(1, head, out=steep)
    gloss.clip(0, np.inf, out=gloss)
    for _ in range(4):
        np.square(gloss, out=gloss)
    lit *= t["key"] * t["gloss"] / (2 + 2 * z) ** 8
    gloss *= lit
    scene.layers["canvas"] *= shade[:, None]
    scene.layers["canvas"] += gloss[:, None]


def _slopes(scene: Scene, hair: Array) -> tuple[Array, Array]:
    """How steeply the head, with its hair on, comes nearer to the right and downwards."""
    mound = scene.rho * scene.rho
    np.subtract(1.7, mound, out=mound)
    mound.clip(0, np.inf, out=mound)
    np.sqrt(mound, out=mound)
    mound *= 1.15
    mound -= scene.depth
    mound *= hair
    mound += scene.depth
    mound *= 0.5 * scene.px
    right, down = np.empty_like(mound), np.empty_like(mound)
    # through the ends of rows, which is one long run instead of many short ones; the ends are put right afterwards
    flat = mound.reshape(-1)
    np.subtract(flat[2:], flat[:-2], out=right.reshape(-1)[1:-1])
    right[:, :, 0] = right[:, :, -1] = 0
    np.subtract(mound[:, 2:], mound[:, :-2], out=down[:, 1:-1])
    down[:, 0] = down[:, -1] = 0
    for slope in (right, down):
        slope.clip(-1.8, 1.8, out=slope)
    return right, down


def block(scene: Scene) -> None:
    """Something in the way: a hand, a scarf, the edge of a door."""
    size = scene.canvas.shape[-1]
    for i in np.flatnonzero(scene.t["block"] < 0.12):
        t = scene.t.some(slice(i, i + 1))
        along, across = (ramp(*_rise(t["block_angle"] + np.float32(turn), size)) for turn in (0, np.pi / 2))
        mask = share((along - 0.52 + 0.42 * t["block_size"] + 1.6 * across * across) * size + 0.5)
        colour = t["block_rgb"] * (0.8 + 0.4 * t["key"] * share(across + 0.5))[:, None]
        scene.canvas[i] += mask[0] * (colour[0] - scene.canvas[i])


def develop(scene: Scene, out: Array) -> None:
    """Exposure, white balance, gamma, blur and noise: linear canvas to RGB uint8 (B, H, W, 3)."""
    t, size = scene.t, scene.canvas.shape[-1]
    balance = np.concatenate([1 + t["warm_n"], 1 + t["tint_n"], 1 - t["warm_n"]], axis=1)[..., None]
    gains = 255**2 * balance * np.exp(2 * t["exposure_n"])[:, None]
    settings = [t[name].ravel().tolist() for name in ("grey", "blur", "noise", "noise_x", "noise_y", "haze")]
    # photograph by photograph: all steps in the caches
    for planes, gain, target, grey, blur, noise, x, y, haze in zip(scene.canvas, gains, out, *settings, strict=True):
        planes *= gain
        planes.clip(0, 1.2 * 255**2, out=planes)
        image: Array = cv2.merge(list(planes))
        cv2.sqrt(image, dst=image)
        if grey > 0:
            image = cv2.transform(image, (1 - grey) * np.eye(3) + grey / 3)
        if blur > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), blur * size / 112)
        cv2.addWeighted(image, 1, _grain(size, x, y), 255 * noise, 255 * haze, dst=image)
        cv2.threshold(image, 0, 0, cv2.THRESH_TOZERO, dst=image)  # before `convertScaleAbs`, which is for its speed
        cv2.convertScaleAbs(image, dst=target)


def _grain(size: int, x: float, y: float) -> Array:
    """A piece of one sheet of noise, which costs a tenth of fresh noise."""
    left, top = int(x * (512 - size)), int(y * (512 - size))
    grain: Array = _NOISE[top : top + size, left : left + size]
    return grain


def _rise(angle: Array, size: int, rise: Array | float = 1.0) -> tuple[Array, Array]:
    """What to sum for a plane that rises by `rise` over the frame in a direction, 0 in the middle."""
    grid = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    return np.cos(angle) * rise * grid, np.sin(angle) * rise * grid
