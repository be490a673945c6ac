"""Draws procedural faces: traits in, photographs and landmarks out. Called by `synthetic`.

Every feature is a soft mask in the coordinates of the head's surface, so pose foreshortens it as it should; the relief
under it (nose, sockets, lips, cheeks) goes into a depth map whose slopes catch the light. Painting happens in linear
light; edges are one pixel wide, which is the antialiasing. Shapes and units as in `synthetic_scene`.
"""

from functools import partial

import numpy as np

from marginface.readers.synthetic_photo import background, block, develop, light
from marginface.readers.synthetic_scene import (
    Scene,
    bump,
    mouth_curve,
    mouth_half_width,
    mouth_y,
    oval,
    place,
    positive,
    share,
)
from marginface.readers.synthetic_traits import Array, Traits

_PIXELS = 8 * 112**2  # drawn at once: enough to forget what a call costs, few enough for a core's second cache

_FRAMES = np.array(
    [[0.01, 0.01, 0.01], [0.10, 0.04, 0.02], [0.35, 0.30, 0.25], [0.25, 0.02, 0.04], [0.02, 0.05, 0.20]], np.float32
)


def render(traits: Traits, size: int) -> tuple[Array, Array]:
    """RGB uint8 (N, size, size, 3) photographs and their float32 (N, 5, 2) points in pixels."""
    placement, pictures = place(traits, size), np.empty((len(traits), size, size, 3), np.uint8)
    together = max(1, _PIXELS // size**2)
    for start in range(0, len(traits), together):
        part = slice(start, start + together)
        _photograph(placement.scene(part), pictures[part])
    return pictures, placement.points


def _photograph(scene: Scene, out: Array) -> None:
    t, strands = scene.t, _strands(scene)
    background(scene)
    _body(scene.rows(slice(int(0.6 * len(out[0])), None)))
    scene.within(partial(_ear, left=True), "left_ear", 0.30, 0.24)
    scene.within(partial(_ear, left=False), "right_ear", 0.30, 0.24)
    _locks(scene, strands)
    face, hair = scene.soft(1 - scene.rho), _hair_mask(scene, strands)
    scene.paint(face, t["skin_rgb"])
    _cheeks_and_chin(scene.rows(slice(int(0.40 * len(out[0])), None)))
    for mole in ("mole1", "mole2"):
        scene.within(partial(_mole, name=mole), mole, 0.08, 0.08, t[mole] > 0.008)
    scene.within(_freckles, "nose", 0.42, 0.74, t["freckles"] > 0)
    scene.within(_forehead, "brow", 0.28, 0.60, t["wrinkle"] > 0)
    scene.within(_beard, "mouth", 0.64, 1.0, t["beard"] + t["moustache"] > 0)
    scene.within(_nose, "nose", 0.39, 0.42)
    scene.within(_mouth, "mouth", 0.34, 0.52)
    scene.within(_eyes, "eyes", 0.40, 0.76)
    scene.paint(hair, t["hair_rgb"], strands)
    light(scene, np.maximum(face, hair), hair)
    scene.within(_glasses, "eyes", 0.54, 1.0, t["wears_glasses"])
    block(scene)
    develop(scene, out)


def _colour(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue], np.float32).reshape(1, 3, 1, 1)


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


# ---- hair


def _strands(scene: Scene) -> Array:
    """Light and dark along the hair: (B, H, W) factors about 1."""
    t = scene.t
    fan = scene.u - t["hair_part"] * 0.8
    fan /= scene.v + 3.4
    wave = scene.v * 6
    wave += t["strand"]
    np.sin(wave, out=wave)
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


def _locks(scene: Scene, strands: Array) -> None:
    """Hair beside and behind the face, as long as it is worn."""
    t, v = scene.t, scene.v
    half = t["head_width"] + 0.05 + 1.2 * t["hair_volume"]
    half[t["hair_length"] <= 0.2] = -9  # not worn
    end = -0.4 + 3.4 * t["hair_length"]
    beside = v * 9
    beside += t["strand"]
    np.sin(beside, out=beside)
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


def _hair_mask(scene: Scene, strands: Array) -> Array:
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


# ---- skin


def _cheeks_and_chin(scene: Scene) -> None:
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


def _mole(scene: Scene, name: str) -> None:
    t = scene.t
    dx, dy = scene.x - t[f"{name}_x"], scene.y - t[f"{name}_y"]
    scene.ink[:] += 0.75 * scene.soft(t[name] - np.sqrt(dx * dx + dy * dy))


def _freckles(scene: Scene) -> None:
    x, y = scene.x, scene.y
    spots = np.sin(x * 41 + 3 * np.sin(y * 17)) * np.sin(y * 37 + 3 * np.sin(x * 19))
    where = oval(x, y - 0.42, 0.95, 0.45) * scene.t["freckles"]
    scene.ink[:] += where * positive(spots - 0.2) * 0.9


def _forehead(scene: Scene) -> None:
    lines = np.sin(scene.y * 24 + 0.5 * np.cos(scene.x * 3)) - 0.55
    where = oval(scene.x, scene.y + 0.72, 0.8, 0.32)
    scene.ink[:] += positive(lines) * scene.t["wrinkle"] * where


def _beard(scene: Scene) -> None:
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


# ---- features: each lays its relief and its paint


def _nose(scene: Scene) -> None:
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


def _mouth(scene: Scene) -> None:
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
    scene.paint(scene.soft(inner) * open_, _colour(0.10, 0.02, 0.02))
    scene.paint(scene.soft(teeth) * open_, _colour(0.80, 0.77, 0.70))
    line = bump((y / 0.030) ** 2) * share(full * 4) * (np.float32(0.65) * ~parted)
    under = bump(((y - bottom - 0.06) / 0.09) ** 2) * full
    corner = oval(np.abs(x) - 1, y, 0.12, 0.06)
    fall = (scene.y - t["nose_y"]) / t["mouth_gap"]
    cheek = np.abs(scene.x) - (t["nose_width"] + 0.08 + fall * (t["mouth_width"] + 0.02 - t["nose_width"]))
    fold = bump((cheek / 0.06) ** 2) * t["fold"] * bump(((fall - 0.5) / 0.8) ** 2)
    scene.ink[:] += line + 0.28 * under + 0.45 * corner + 0.15 * lips * (y < 0) + fold


def _eyes(scene: Scene) -> None:
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
    scene.paint(inside, _colour(0.72, 0.70, 0.68))
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
    scene.paint(scene.soft(0.42 * t["iris"] - radius) * inside, _colour(0.008, 0.008, 0.008))
    glint_x, glint_y = dx * side - 0.035 * np.sign(t["light_x"]), dy + 0.04
    glint = scene.soft(0.028 - np.sqrt(glint_x * glint_x + glint_y * glint_y)) * iris
    scene.paint(glint, _colour(1.6, 1.6, 1.6))


def _brows(scene: Scene, across: Array, side: Array) -> None:
    t = scene.t
    x = (across - t["brow_gap"]) / t["brow_length"]
    x2 = x * x
    middle = t["brow_y"] + t["brow_arch"] * (1 - x2) + (t["brow_tilt"] * 0.6 + t["frown_n"] * 1.5) * x
    middle += t["raise_n"] * (1 + 0.5 * side)
    thick = t["brow_thick"] * (1 - 0.35 * x) * positive(1 - x2 * x2)
    hairs = t["brow_ink"] * (0.85 + 0.15 * np.sin(across * 60 + scene.y * 35))
    scene.paint(scene.soft((thick - np.abs(scene.y + middle)) * 0.7) * (x2 < 1) * hairs, t["brow_rgb"])


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
    scene.paint(lens * np.where(t["shades"] > 0, np.float32(0.93), np.float32(0.06)), _colour(0.012, 0.012, 0.012))
    streak = bump(((x - 0.4 * y - 0.3 * t["light_x"]) / 0.10) ** 2) * (0.18 * t["key"])
    scene.layers["canvas"] += (lens * streak)[:, None]
    metal = _FRAMES[np.minimum(t["glasses_colour"] * 5, 4).astype(int).ravel()]
    scene.paint(scene.soft(frame) * (scene.rho < 1.02), metal.reshape(-1, 3, 1, 1))
