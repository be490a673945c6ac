"""The skin and the features of procedural faces: each lays its relief and its paint. Called by `synthetic_render`.

Shapes and units as in `synthetic_scene`.
"""

import numpy as np

from marginface.readers.synthetic_scene import (
    Scene,
    bump,
    colour,
    mouth_curve,
    mouth_half_width,
    mouth_y,
    oval,
    positive,
    share,
)
from marginface.readers.synthetic_traits import Array


def cheeks_and_chin(scene: Scene) -> None:
    t, x, y = scene.t, scene.x, scene.y
    smiling = np.maximum(t["smile"], 0)
    chin = oval(x, y - t["head_height"] * 0.87, 0.36, 0.26)
    chin *= t["chin_bump"]
    across = np.abs(x)
    across -= 0.58
    cheek = oval(across, y - (t["cheek_y"] - 0.08 * smiling), 0.37, 0.40)
    chin += np.multiply(cheek, t["cheek"] + 0.04 * smiling, out=across)
    scene.depth[:] += chin
    cheek *= -0.7 * t["blush"]
    cheek += 1
    scene.canvas[:, 1:] *= cheek[:, None]


def mole(scene: Scene, name: str) -> None:
    t = scene.t
    dx, dy = scene.x - t[f"{name}_x"], scene.y - t[f"{name}_y"]
    scene.ink[:] += 0.75 * scene.soft(t[name] - np.sqrt(dx * dx + dy * dy))


def freckles(scene: Scene) -> None:
    x, y = scene.x, scene.y
    spots = np.sin(x * 41 + 3 * np.sin(y * 17)) * np.sin(y * 37 + 3 * np.sin(x * 19))
    where = oval(x, y - 0.42, 0.95, 0.45) * scene.t["freckles"]
    scene.ink[:] += where * positive(spots - 0.2) * 0.9


def forehead(scene: Scene) -> None:
    lines = np.sin(scene.y * 24 + 0.5 * np.cos(scene.x * 3)) - 0.55
    where = oval(scene.x, scene.y + 0.72, 0.8, 0.32)
    scene.ink[:] += positive(lines) * scene.t["wrinkle"] * where


def beard(scene: Scene) -> None:
    t, x, y = scene.t, scene.x, scene.y
    across, mouth = np.abs(x), mouth_y(t)
    cheek_line = t["nose_y"] + 0.10 + 0.42 * positive(1 - across * 1.15) - 0.55 * positive(across - 0.72)
    clear = np.sqrt((x / (t["mouth_width"] * 1.05)) ** 2 + ((y - mouth - 0.02) / 0.19) ** 2) - 1
    rough = 0.04 * np.sin(x * 31 + y * 13) + 0.03 * np.sin(x * 17 - y * 29)
    beard = share(np.minimum(y - cheek_line, clear * 0.2) * 7 + rough * 5) * t["beard"]
    beard *= share((1 - scene.rho) * 20)
    flat = (x / (t["mouth_width"] * 0.98)) ** 2
    lip_line = (y - mouth + 0.16 - 0.10 * across) / 0.085
    moustache = share(1.35 - np.sqrt(flat * flat + lip_line * lip_line)) * t["moustache"]
    scene.paint(np.maximum(beard, moustache) * 0.93, t["brow_rgb"], 1 + 3 * rough)


def nose(scene: Scene) -> None:
    t, y, tip = scene.t, scene.y, scene.nose_y
    along = ((y + 0.12) / (tip + 0.12)).clip(0, 1.6)
    down = along.clip(0, 1)
    down *= down
    x = np.abs(scene.x - scene.nose_x * down)
    width = (1.9 * (t["nose_tip"] - t["nose_bridge"])) * down + 1.9 * (t["nose_bridge"] + 0.06)
    under = share((tip + 0.16 - y) * 5) * (along > 0)
    hook = t["nose_hook"] * bump(((along - 0.5) / 0.4) ** 2)
    ridge = bump((x / width) ** 2) * (down * (0.85 * t["nose_height"]) + 0.15 * t["nose_height"] + hook) * under
    wing = oval(x - 0.68 * t["nose_width"], y - (tip + 0.03), 0.15, 0.17)
    scene.depth[:] += np.maximum(ridge, 0.15 * wing)

    base = tip + 0.10 - t["nose_lift"]
    x = np.abs(scene.x - scene.nose_x * 0.75)
    hole = oval(x - 0.48 * t["nose_width"], y - base, 0.43 * t["nose_width"], 0.0598)
    rim_x = (x - 0.75 * t["nose_width"]) / (0.25 * t["nose_width"] + 0.02)
    rim = np.sqrt(rim_x**2 + ((y - (tip + 0.02)) / 0.14) ** 2)
    rim = bump(((rim - 1) / 0.35) ** 2) * (x > 0.8 * t["nose_width"])
    below = oval(x, y - (base + 0.05), t["nose_width"] * 1.1, 0.09)
    scene.ink[:] += 0.8 * hole + 0.35 * rim + 0.25 * below


def mouth(scene: Scene) -> None:
    t = scene.t
    smiling = np.maximum(t["smile"], 0)
    x = scene.x / mouth_half_width(t)
    x2 = x * x
    within, full = (x2 < 1).astype(np.float32), positive(1 - x2)
    thick = full * ((1.6 - 0.6 * full) * (1 - 0.25 * smiling))
    y = scene.y - mouth_y(t)
    scene.depth[:] += 0.10 * oval(scene.x, y - 0.02, t["mouth_width"] * 1.1, 0.22)
    y -= mouth_curve(t) * x2.clip(0, 1.3)
    gap = 0.20 * np.maximum(t["open"], 0) * (0.4 + 0.6 * smiling)
    gap_full, parted = gap * full, gap > 0.01
    gap_top, gap_bottom = -0.35 * gap_full, 0.65 * gap_full
    top = gap_top - t["lip_upper"] * thick * (1 - (t["lip_bow"] * 0.45) * bump(x2 * 18))
    bottom = gap_bottom + t["lip_lower"] * thick
    lips = scene.soft(np.minimum(y - top, bottom - y)) * within
    red = np.concatenate([1 - 0.10 * t["lip_red"], 1 - 0.62 * t["lip_red"], 1 - 0.50 * t["lip_red"]], axis=1)
    scene.paint(lips * 0.9, t["skin_rgb"] * red[..., None] * 0.82)
    inner, open_ = np.minimum(y - gap_top, gap_bottom - y), within * parted
    teeth = np.minimum(inner, 0.42 * gap_full + 0.02 - y)
    scene.paint(scene.soft(inner) * open_, colour(0.10, 0.02, 0.02))
    scene.paint(scene.soft(teeth) * open_, colour(0.80, 0.77, 0.70))
    line = bump((y / 0.030) ** 2) * share(full * 4) * (np.float32(0.65) * ~parted)
    under = bump(((y - bottom - 0.06) / 0.09) ** 2) * full
    corner = oval(np.abs(x) - 1, y, 0.12, 0.06)
    fall = (scene.y - t["nose_y"]) / t["mouth_gap"]
    cheek = np.abs(scene.x) - (t["nose_width"] + 0.08 + fall * (t["mouth_width"] + 0.02 - t["nose_width"]))
    fold = bump((cheek / 0.06) ** 2) * t["fold"] * bump(((fall - 0.5) / 0.8) ** 2)
    scene.ink[:] += line + 0.28 * under + 0.45 * corner + 0.15 * lips * (y < 0) + fold


def eyes(scene: Scene) -> None:
    """Both eyes at once, in mirrored coordinates: x grows outwards from each eye's middle."""
    t, side = scene.t, np.sign(scene.x)
    absolute = np.abs(scene.x)
    across = absolute - t["eye_x"]
    socket = oval(across, scene.y + 0.04, 0.36, 0.26)
    ridge = oval(absolute, scene.y + t["brow_y"], 0.85, 0.20)
    scene.depth[:] += 0.07 * ridge - (0.05 + t["eye_depth"]) * socket
    x, y = across / t["eye_width"], scene.y + t["eye_tilt"] * across
    x2 = x * x
    full = positive(1 - x2)
    near = share(full * 5)
    lid = t["wink_n"] * side + (t["eye_lid"] - 0.12 * np.maximum(t["smile"], 0))
    above = y + t["eye_open"] * lid * full * (1 + t["eye_peak"] * x) * (1.25 - 0.25 * full)
    below = t["eye_low"] * (0.5 + 0.5 * lid) * full - y
    inside = scene.soft(np.minimum(above, below)) * (full > 0)
    scene.paint(inside, colour(0.72, 0.70, 0.68))
    _iris(scene, across, side, inside)
    lash = scene.soft(t["lash"] * (1.1 + 0.6 * x) - np.abs(above)) * near
    shadow = inside * share(1 - above / 0.07)
    crease = bump(((above + t["crease"]) / 0.035) ** 2) * share(3.6 - 3 * x2)
    rim = 0.35 * bump((below / 0.035) ** 2) * near + t["crease_ink"] * crease
    scene.ink[:] += 0.85 * lash + 0.45 * shadow + rim * (1 - inside)
    if t["wrinkle"].any():
        scene.ink[:] += (0.4 * t["wrinkle"]) * oval(x, y - 0.20, 1.1, 0.10)
    _brows(scene, across, side)


def _iris(scene: Scene, across: Array, side: Array, inside: Array) -> None:
    t = scene.t
    dx = across - (0.4 * t["gaze_x_n"] * t["eye_width"]) * side
    dy = scene.y + 0.025 - t["gaze_y_n"] * 0.25
    radius = np.sqrt(dx * dx + dy * dy)
    iris = scene.soft(t["iris"] - radius) * inside
    ring = share(radius / t["iris"])
    scene.paint(iris, t["eye_rgb"], 0.45 + 0.75 * ring - 0.9 * positive(ring - 0.75))
    scene.paint(scene.soft(0.42 * t["iris"] - radius) * inside, colour(0.008, 0.008, 0.008))
    glint_x, glint_y = dx * side - 0.035 * np.sign(t["light_x"]), dy + 0.04
    glint = scene.soft(0.028 - np.sqrt(glint_x * glint_x + glint_y * glint_y)) * iris
    scene.paint(glint, colour(1.6, 1.6, 1.6))


def _brows(scene: Scene, across: Array, side: Array) -> None:
    t = scene.t
    x = (across - t["brow_gap"]) / t["brow_length"]
    x2 = x * x
    middle = t["brow_y"] + t["brow_arch"] * (1 - x2) + (t["brow_tilt"] * 0.6 + t["frown_n"] * 1.5) * x
    middle += t["raise_n"] * (1 + 0.5 * side)
    thick = t["brow_thick"] * (1 - 0.35 * x) * positive(1 - x2 * x2)
    hairs = t["brow_ink"] * (0.85 + 0.15 * np.sin(across * 60 + scene.y * 35))
    scene.paint(scene.soft((thick - np.abs(scene.y + middle)) * 0.7) * (x2 < 1) * hairs, t["brow_rgb"])
