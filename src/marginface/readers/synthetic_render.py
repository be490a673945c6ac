"""Draws procedural faces: traits in, photographs and landmarks out. Called by `synthetic`.

Every feature is a soft mask in the coordinates of the head's surface, so pose foreshortens it as it should; the relief
under it (nose, sockets, lips, cheeks) goes into a depth map whose slopes catch the light. Painting happens in linear
light; edges are one pixel wide, which is the antialiasing. Shapes and units as in `synthetic_scene`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from marginface.readers import synthetic_features as features
from marginface.readers.synthetic_hair import hair_mask, locks, strands_of
from marginface.readers.synthetic_photo import background, block, develop, light
from marginface.readers.synthetic_scene import Scene, bump, colour, place, positive
from marginface.readers.synthetic_traits import Array, Traits

# Drawn at once: calls have to be long, for threads hand over Python's lock at each (8 photographs are hardly faster on
# two threads than on one, 32 a seventh faster than 16), and their planes have to stay in the caches (64 are slower).
_PIXELS = 32 * 112**2

_FRAMES = np.array(
    [[0.01, 0.01, 0.01], [0.10, 0.04, 0.02], [0.35, 0.30, 0.25], [0.25, 0.02, 0.04], [0.02, 0.05, 0.20]], np.float32
)


def render(traits: Traits, size: int) -> tuple[Array, Array]:
    """RGB uint8 (N, size, size, 3) photographs and their float32 (N, 5, 2) points in pixels."""
    count = traits.photographs
    placement, pictures = place(traits, size), np.empty((count, size, size, 3), np.uint8)
    together = max(1, _PIXELS // size**2)
    with _short_buffers():
        for start in range(0, count, together):
            part = slice(start, start + together)
            _photograph(placement.scene(part), pictures[part])
    return pictures, placement.points


@contextmanager
def _short_buffers() -> Iterator[None]:
    """Keeps numpy from copying: it buffers operands wherever a plane is shorter than its buffer, 8192 elements.

    A window times a trait takes a third of the time without. The setting is the thread's own.
    """
    before = np.setbufsize(512)
    try:
        yield
    finally:
        np.setbufsize(before)


def _photograph(scene: Scene, out: Array) -> None:
    t, strands = scene.t, strands_of(scene)
    background(scene)
    _body(scene.rows(slice(int(0.6 * len(out[0])), None)))
    scene.within(partial(_ear, left=True), "left_ear", 0.30, 0.24)
    scene.within(partial(_ear, left=False), "right_ear", 0.30, 0.24)
    locks(scene, strands)
    face, hair = scene.soft(1 - scene.rho), hair_mask(scene, strands)
    scene.paint(face, t["skin_rgb"])
    features.cheeks_and_chin(scene.rows(slice(int(0.40 * len(out[0])), None)))
    for mole in ("mole1", "mole2"):
        scene.within(partial(features.mole, name=mole), mole, 0.08, 0.08, t[mole] > 0.008)
    scene.within(features.freckles, "nose", 0.42, 0.74, t["freckles"] > 0)
    scene.within(features.forehead, "brow", 0.28, 0.60, t["wrinkle"] > 0)
    scene.within(features.beard, "beard", 0.54, 1.0, t["beard"] + t["moustache"] > 0)
    scene.within(features.nose, "nose", 0.39, 0.42)
    scene.within(features.mouth, "mouth", 0.34, 0.52)
    scene.within(features.eyes, "eyes", 0.40, 0.76)
    scene.paint(hair, t["hair_rgb"], strands)
    light(scene, np.maximum(face, hair), hair)
    scene.within(_glasses, "eyes", 0.42, 1.0, t["wears_glasses"])
    block(scene)
    develop(scene, out)


# ---- behind the face


def _body(scene: Scene) -> None:
    t = scene.t
    beside = scene.u + 0.25 * np.sin(t["yaw_n"])
    np.abs(beside, out=beside)
    cloth = positive(0.75 - beside)
    cloth *= -0.55 * t["collar"]
    cloth += scene.v
    cloth -= 1.72 + 0.10 * t["collar"]
    np.subtract(0.60 + 0.12 * (t["masculine"] > 0.5), beside, out=beside)
    scene.paint(scene.soft(beside), t["skin_rgb"] * 0.42)
    scene.paint(scene.soft(cloth), t["cloth_rgb"])


def _ear(scene: Scene, left: bool) -> None:
    t = scene.t
    middle = scene.left_ear - 0.06 if left else scene.right_ear + 0.06
    dx = (scene.u - middle) / (t["ear_size"] * 0.55)
    dy = (scene.v - scene.ear_y) / t["ear_size"]
    dx *= dx
    dy *= dy
    fold = 1 - 0.45 * bump(dx * 3 + dy * 1.8)
    scene.paint(scene.soft((1 - np.sqrt(dx + dy)) * (t["ear_size"] * 0.7)), t["skin_rgb"] * 0.72, fold)


# ---- in front of the face


def _glasses(scene: Scene) -> None:
    t, x, y = scene.t, scene.x, scene.y
    across = np.abs(x)
    corner = t["glasses_round"] * np.minimum(t["glasses_w"], t["glasses_h"])
    qx = np.abs(across - t["eye_x"] - 0.02) - t["glasses_w"] + corner
    qy = np.abs(y - 0.05) - t["glasses_h"] + corner
    edge = np.sqrt(positive(qx) ** 2 + positive(qy) ** 2) + np.maximum(qx, qy).clip(-np.inf, 0) - corner
    inner = t["eye_x"] + 0.02 - t["glasses_w"]
    bridge = np.abs(y + 0.06 - 0.12 * across * across / inner) + positive(across - inner)
    arm = np.abs(y + 0.05) + positive(inner + 2 * t["glasses_w"] - across)
    frame = t["glasses_thick"] + 0.004 - np.minimum(np.minimum(np.abs(edge), bridge), arm)
    lens = scene.soft(-edge)
    scene.paint(lens * np.where(t["shades"] > 0, np.float32(0.93), np.float32(0.06)), colour(0.012, 0.012, 0.012))
    streak = bump(((x - 0.4 * y - 0.3 * t["light_x"]) / 0.10) ** 2) * (0.18 * t["key"])
    scene.layers["canvas"] += (lens * streak)[:, None]
    metal = _FRAMES[np.minimum(t["glasses_colour"] * 5, 4).astype(int).ravel()]
    scene.paint(scene.soft(frame) * (scene.rho < 1.02), metal.reshape(-1, 3, 1, 1))
