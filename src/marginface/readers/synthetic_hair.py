"""The hair of procedural faces: strands, the locks beside the face, what grows on the skull. For `synthetic_render`.

Shapes and units as in `synthetic_scene`; whole frames are worked on in place, as it says there.
"""

import numpy as np

from marginface.readers.synthetic_scene import Scene, positive
from marginface.readers.synthetic_traits import Array


def strands_of(scene: Scene) -> Array:
    """Light and dark along the hair: (B, H, W) factors about 1."""
    t = scene.t
    fan = scene.u - t["hair_part"] * 0.8
    fan /= scene.v + 3.4
    wave = scene.waves(6)
    wave *= t["hair_curl"]
    strands: Array = fan * 19
    strands += wave
    np.sin(strands, out=strands)
    strands *= 2.5
    strands += fan * 83
    np.sin(strands, out=strands)
    fan *= 211
    wave *= 3
    fan -= wave
    strands += np.sin(fan, out=fan)
    strands *= 0.13 * (1 - t["wears_hat"])
    strands += 1
    return strands


def locks(scene: Scene, strands: Array) -> None:
    """Hair beside and behind the face, as long as it is worn."""
    t, v = scene.t, scene.v
    half = t["head_width"] + 0.05 + 1.2 * t["hair_volume"]
    half[t["hair_length"] <= 0.2] = -9  # not worn
    end = -0.4 + 3.4 * t["hair_length"]
    beside = scene.waves(9)
    beside *= 0.05 * t["hair_curl"]
    beside += np.abs(scene.u)
    shape = positive(-0.1 - v)
    shape *= shape
    shape *= -0.25
    shape -= beside
    shape += half
    below = end - v
    below *= 0.6
    np.minimum(shape, below, out=shape)
    beside -= 0.5
    np.minimum(shape, beside, out=shape)
    scene.paint(scene.soft(shape), t["hair_rgb"] * 0.55, strands)


def hair_mask(scene: Scene, strands: Array) -> Array:
    """The hair of the head: inside the outline of skull and volume, outside the opening for the face."""
    t, x, y = scene.t, scene.x, scene.y
    rough = strands - 1
    rough *= 0.25
    fringe = 0.4 * positive((t["fringe"] - 0.6) / 0.4) * (1 - t["wears_hat"]) * (1 - t["bald"])
    line = x * (2 + 2 * t["hair_curl"])
    line += t["hair_part"] * 5
    np.sin(line, out=line)
    line *= -0.5 * fringe
    line += 0.5 - (t["hair_line"] - 0.8 * t["bald"] + fringe)

    opening = x * (-0.45 * t["hair_part"])
    opening += y
    opening += rough
    opening -= 0.5
    opening.clip(-np.inf, 0, out=opening)
    opening /= line
    opening *= opening
    np.divide(x, t["hair_round"], out=line)
    line *= line
    opening += line
    np.sqrt(opening, out=opening)
    opening -= 1
    opening *= 0.8

    outline = positive(scene.v)
    outline *= -0.25 * t["hair_volume"]
    outline -= scene.rho
    outline += 1 + t["hair_volume"] * (1 - 0.85 * t["bald"])
    outline += np.multiply(rough, 0.5, out=line)
    np.minimum(opening, outline, out=opening)
    rough -= y
    rough += -0.25 + 1.1 * t["hair_length"] + 6 * positive(t["hair_length"] - 0.25)
    rough *= 0.35
    np.minimum(opening, rough, out=opening)
    if t["bald"].any():
        np.minimum(opening, (y + 0.35) * 0.12 + 3 * (1 - t["bald"]), out=opening)
    return scene.soft(opening)
