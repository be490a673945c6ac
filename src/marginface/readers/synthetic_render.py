"""Draws procedural faces: traits in, photographs and landmarks out. Called by `synthetic`.

Every feature is a soft mask in the coordinates of the head's surface, so pose foreshortens it as it should; the relief
under it (nose, sockets, lips, cheeks) goes into a depth map whose slopes catch the light. Painting happens in linear
light; edges are one pixel wide, which is the antialiasing. Shapes and units as in `synthetic_scene`.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from marginface.readers.synthetic_photo import background, block, develop, light
from marginface.readers.synthetic_scene import Scene, bump, compose, mouth_curve, mouth_half_width, mouth_y, positive
from marginface.readers.synthetic_traits import Array, Traits

_FRAMES = np.array(
    [[0.01, 0.01, 0.01], [0.10, 0.04, 0.02], [0.35, 0.30, 0.25], [0.25, 0.02, 0.04], [0.02, 0.05, 0.20]], np.float32
)


def render(traits: Traits, size: int) -> tuple[Array, Array]:
    """RGB uint8 (B, size, size, 3) photographs and their float32 (B, 5, 2) points in pixels."""
    t = traits
    scene, points = compose(traits, size)
    strands = _strands(scene)
    background(scene)
    _body(scene)
    scene.within(partial(_ear, left=True), "left_ear", 0.30, 0.24)
    scene.within(partial(_ear, left=False), "right_ear", 0.30, 0.24)
    _locks(scene, strands)
    face, hair = scene.soft(1 - scene.rho), _hair_mask(scene, strands)
    scene.paint(face, t["skin_rgb"])
    _cheeks_and_chin(scene)
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
    return develop(scene), points


def _colour(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue], np.float32).reshape(1, 3, 1, 1)


# ---- behind the face


def _body(scene: Scene) -> None:
    t, low = scene.t, int(0.6 * scene.canvas.shape[-1])
    body = replace(scene, planes=scene.planes[:, :, low:])
    v = scene.v[:, low:]
    beside = np.abs(scene.u[:, low:] + 0.25 * np.sin(t["yaw_n"]))
    neck = scene.soft(0.60 + 0.12 * (t["masculine"] > 0.5) - beside)
    body.paint(neck, t["skin_rgb"] * 0.42)
    cloth = scene.soft(v - (1.72 + 0.10 * t["collar"]) - 0.55 * t["collar"] * positive(0.75 - beside))
    body.paint(cloth, t["cloth_rgb"])


def _ear(scene: Scene, left: bool) -> None:
    t = scene.t
    middle = scene.left_ear - 0.06 if left else scene.right_ear + 0.06
    dx = (scene.u - middle) / (t["ear_size"] * 0.55)
    dy = (scene.v - scene.ear_y) / t["ear_size"]
    fold = 1 - 0.45 * bump(dx * dx * 3 + dy * dy * 1.8)
    scene.paint(scene.soft((1 - np.sqrt(dx * dx + dy * dy)) * t["ear_size"] * 0.7), t["skin_rgb"] * 0.72, fold)


# ---- hair


def _strands(scene: Scene) -> Array:
    """Light and dark along the hair: (B, H, W) factors about 1."""
    t = scene.t
    fan = (scene.u - t["hair_part"] * 0.8) / (scene.v + 3.4)
    wave = t["hair_curl"] * np.sin(scene.v * 6 + t["strand"])
    fine = np.sin(fan * 83 + 2.5 * np.sin(fan * 19 + wave)) + np.sin(fan * 211 - 3 * wave)
    strands: Array = 1 + (0.13 * (1 - t["wears_hat"])) * fine
    return strands


def _locks(scene: Scene, strands: Array) -> None:
    """Hair beside and behind the face, as long as it is worn."""
    t = scene.t
    half = t["head_width"] + 0.05 + 1.2 * t["hair_volume"]
    end = -0.4 + 3.4 * t["hair_length"]
    wavy = 0.05 * t["hair_curl"] * np.sin(scene.v * 9 + t["strand"])
    beside = np.abs(scene.u) + wavy
    above = positive(-0.1 - scene.v)
    shape = np.minimum(np.minimum(half - 0.25 * above * above - beside, (end - scene.v) * 0.6), beside - 0.5)
    worn = scene.soft(shape) * (t["hair_length"] > 0.2)
    scene.paint(worn, t["hair_rgb"] * 0.55, strands)


def _hair_mask(scene: Scene, strands: Array) -> Array:
    """The hair of the head: inside the outline of skull and volume, outside the opening for the face."""
    t, x, y = scene.t, scene.x, scene.y
    rough = 0.25 * (strands - 1)
    fringe = 0.4 * positive((t["fringe"] - 0.6) / 0.4) * (1 - t["wears_hat"]) * (1 - t["bald"])
    line = t["hair_line"] - 0.8 * t["bald"] + fringe
    line = line + 0.5 * fringe * np.sin(x * (2 + 2 * t["hair_curl"]) + t["hair_part"] * 5)
    height = np.clip(y - (t["hair_part"] * 0.45) * x + rough - 0.5, -np.inf, 0) / (0.5 - line)
    width = x / t["hair_round"]
    opening = np.sqrt(width * width + height * height) - 1
    outline = 1 + t["hair_volume"] * (1 - 0.85 * t["bald"]) - scene.rho + 0.5 * rough
    outline -= (0.25 * t["hair_volume"]) * positive(scene.v)
    end = (-0.25 + 1.1 * t["hair_length"] + 6 * positive(t["hair_length"] - 0.25)) - y + rough
    crown = (y + 0.35) * 0.12 + 3 * (1 - t["bald"])
    return scene.soft(np.minimum(np.minimum(opening * 0.8, outline), np.minimum(end * 0.35, crown)))


# ---- skin


def _cheeks_and_chin(scene: Scene) -> None:
    t, high = scene.t, int(0.40 * scene.canvas.shape[-1])
    x, y, depth = scene.x[:, high:], scene.y[:, high:], scene.depth[:, high:]
    smiling = np.maximum(t["smile"], 0)
    dx, dy = (np.abs(x) - 0.58) / 0.37, (y - t["cheek_y"] + 0.08 * smiling) / 0.40
    cheek = bump(dx * dx + dy * dy)
    dx, dy = x / 0.36, (y - t["head_height"] * 0.87) / 0.26
    depth += (t["cheek"] + 0.04 * smiling) * cheek + t["chin_bump"] * bump(dx * dx + dy * dy)
    scene.canvas[:, 1:, high:] *= 1 - (0.7 * t["blush"] * cheek)[:, None]


def _mole(scene: Scene, name: str) -> None:
    t = scene.t
    dx, dy = scene.x - t[f"{name}_x"], scene.y - t[f"{name}_y"]
    scene.ink[:] += 0.75 * scene.soft(t[name] - np.sqrt(dx * dx + dy * dy))


def _freckles(scene: Scene) -> None:
    x, y = scene.x, scene.y
    spots = np.sin(x * 41 + 3 * np.sin(y * 17)) * np.sin(y * 37 + 3 * np.sin(x * 19))
    where = bump((x / 0.95) ** 2 + ((y - 0.42) / 0.45) ** 2) * scene.t["freckles"]
    scene.ink[:] += where * positive(spots - 0.2) * 0.9


def _forehead(scene: Scene) -> None:
    lines = np.sin(scene.y * 24 + 0.5 * np.cos(scene.x * 3)) - 0.55
    where = bump((scene.x / 0.8) ** 2 + ((scene.y + 0.72) / 0.32) ** 2)
    scene.ink[:] += positive(lines) * scene.t["wrinkle"] * where


def _beard(scene: Scene) -> None:
    t, x, y = scene.t, scene.x, scene.y
    across, mouth = np.abs(x), mouth_y(t)
    cheek_line = t["nose_y"] + 0.10 + 0.42 * positive(1 - across * 1.15) - 0.55 * positive(across - 0.72)
    clear = np.sqrt((x / (t["mouth_width"] * 1.05)) ** 2 + ((y - mouth - 0.02) / 0.19) ** 2) - 1
    rough = 0.04 * np.sin(x * 31 + y * 13) + 0.03 * np.sin(x * 17 - y * 29)
    beard = np.clip(np.minimum(y - cheek_line, clear * 0.2) * 7 + rough * 5, 0, 1) * t["beard"]
    beard *= np.clip((1 - scene.rho) * 20, 0, 1)
    flat = (x / (t["mouth_width"] * 0.98)) ** 2
    lip_line = (y - mouth + 0.16 - 0.10 * across) / 0.085
    moustache = np.clip(1.35 - np.sqrt(flat * flat + lip_line * lip_line), 0, 1) * t["moustache"]
    scene.paint(np.maximum(beard, moustache) * 0.93, t["brow_rgb"], 1 + 3 * rough)


# ---- features: each lays its relief and its paint


def _nose(scene: Scene) -> None:
    t, y, tip = scene.t, scene.y, scene.nose_y
    along = np.clip((y + 0.12) / (tip + 0.12), 0, 1.6)
    down = np.clip(along, 0, 1)
    down *= down
    x = np.abs(scene.x - scene.nose_x * down)
    width = 1.9 * (t["nose_bridge"] + (t["nose_tip"] - t["nose_bridge"]) * down + 0.06)
    under = np.clip((tip + 0.16 - y) * 5, 0, 1) * (along > 0)
    hook = t["nose_hook"] * bump(((along - 0.5) / 0.4) ** 2)
    ridge = bump((x / width) ** 2) * ((0.15 + 0.85 * down) * t["nose_height"] + hook) * under
    wing = ((x - 0.68 * t["nose_width"]) / 0.15) ** 2 + ((y - tip - 0.03) / 0.17) ** 2
    scene.depth[:] += np.maximum(ridge, 0.15 * bump(wing))

    base = tip + 0.10 - t["nose_lift"]
    x = np.abs(scene.x - scene.nose_x * 0.75)
    hole = ((x - 0.48 * t["nose_width"]) / (0.36 * t["nose_width"])) ** 2 + ((y - base) / 0.05) ** 2
    rim_x = (x - 0.75 * t["nose_width"]) / (0.25 * t["nose_width"] + 0.02)
    rim = bump(((np.sqrt(rim_x**2 + ((y - tip - 0.02) / 0.14) ** 2) - 1) / 0.35) ** 2) * (x > 0.8 * t["nose_width"])
    below = bump(((y - base - 0.05) / 0.09) ** 2 + (x / (t["nose_width"] * 1.1)) ** 2)
    scene.ink[:] += 0.8 * bump(hole * 0.7) + 0.35 * rim + 0.25 * below


def _mouth(scene: Scene) -> None:
    t = scene.t
    smiling = np.maximum(t["smile"], 0)
    x = scene.x / mouth_half_width(t)
    x2 = x * x
    within, full = x2 < 1, positive(1 - x2)
    thick = full * (1.6 - 0.6 * full) * (1 - 0.25 * smiling)
    y = scene.y - mouth_y(t)
    scene.depth[:] += 0.10 * bump((scene.x / (t["mouth_width"] * 1.1)) ** 2 + ((y - 0.02) / 0.22) ** 2)
    y -= mouth_curve(t) * np.clip(x2, 0, 1.3)
    gap = 0.20 * np.maximum(t["open"], 0) * (0.4 + 0.6 * smiling)
    gap_full = gap * full
    top = -0.35 * gap_full - t["lip_upper"] * thick * (1 - t["lip_bow"] * 0.45 * bump(x2 * 18))
    bottom = 0.65 * gap_full + t["lip_lower"] * thick
    lips = scene.soft(np.minimum(y - top, bottom - y)) * within
    red = np.concatenate([1 - 0.10 * t["lip_red"], 1 - 0.62 * t["lip_red"], 1 - 0.50 * t["lip_red"]], axis=1)
    scene.paint(lips * 0.9, t["skin_rgb"] * red[..., None] * 0.82)
    inner = np.minimum(y + 0.35 * gap_full, 0.65 * gap_full - y)
    parted = within & (gap > 0.01)
    scene.paint(scene.soft(inner) * parted, _colour(0.10, 0.02, 0.02))
    scene.paint(scene.soft(np.minimum(inner, 0.42 * gap_full + 0.02 - y)) * parted, _colour(0.80, 0.77, 0.70))
    line = bump((y / 0.030) ** 2) * np.clip(full * 4, 0, 1) * (gap <= 0.01)
    under = bump(((y - bottom - 0.06) / 0.09) ** 2) * full
    corner = bump(((np.abs(x) - 1) / 0.12) ** 2 + (y / 0.06) ** 2)
    fall = (scene.y - t["nose_y"]) / t["mouth_gap"]
    cheek = np.abs(scene.x) - (t["nose_width"] + 0.08 + fall * (t["mouth_width"] + 0.02 - t["nose_width"]))
    fold = bump((cheek / 0.06) ** 2) * t["fold"] * bump(((fall - 0.5) / 0.8) ** 2)
    scene.ink[:] += 0.65 * line + 0.28 * under + 0.45 * corner + 0.15 * lips * (y < 0) + fold


def _eyes(scene: Scene) -> None:
    """Both eyes at once, in mirrored coordinates: x grows outwards from each eye's middle."""
    t, side = scene.t, np.sign(scene.x)
    absolute = np.abs(scene.x)
    across = absolute - t["eye_x"]
    socket = bump((across / 0.36) ** 2 + ((scene.y + 0.04) / 0.26) ** 2)
    ridge = bump((absolute / 0.85) ** 2 + ((scene.y + t["brow_y"]) / 0.20) ** 2)
    scene.depth[:] += 0.07 * ridge - (0.05 + t["eye_depth"]) * socket
    x, y = across / t["eye_width"], scene.y + t["eye_tilt"] * across
    x2 = x * x
    full = positive(1 - x2)
    near = np.clip(full * 5, 0, 1)
    lid = t["eye_lid"] + t["wink_n"] * side - 0.12 * np.maximum(t["smile"], 0)
    above = y + t["eye_open"] * lid * full * (1 + t["eye_peak"] * x) * (1.25 - 0.25 * full)
    below = t["eye_low"] * (0.5 + 0.5 * lid) * full - y
    inside = scene.soft(np.minimum(above, below)) * (full > 0)
    scene.paint(inside, _colour(0.72, 0.70, 0.68))
    _iris(scene, across, side, inside)
    lash = scene.soft(t["lash"] * (1.1 + 0.6 * x) - np.abs(above)) * near
    shadow = inside * np.clip(1 - above / 0.07, 0, 1)
    crease = bump(((above + t["crease"]) / 0.035) ** 2) * np.clip(3.6 - 3 * x2, 0, 1)
    rim = 0.35 * bump((below / 0.035) ** 2) * near + t["crease_ink"] * crease
    bag = bump((x / 1.1) ** 2 + ((y - 0.20) / 0.10) ** 2) * t["wrinkle"]
    scene.ink[:] += 0.85 * lash + 0.45 * shadow + rim * (1 - inside) + 0.4 * bag
    _brows(scene, across, side)


def _iris(scene: Scene, across: Array, side: Array, inside: Array) -> None:
    t = scene.t
    dx = across - (0.4 * t["gaze_x_n"] * t["eye_width"]) * side
    dy = scene.y + 0.025 - t["gaze_y_n"] * 0.25
    radius = np.sqrt(dx * dx + dy * dy)
    iris = scene.soft(t["iris"] - radius) * inside
    ring = np.clip(radius / t["iris"], 0, 1)
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
    edge = np.sqrt(positive(qx) ** 2 + positive(qy) ** 2) + np.clip(np.maximum(qx, qy), -np.inf, 0) - corner
    inner = t["eye_x"] + 0.02 - t["glasses_w"]
    bridge = np.abs(y + 0.06 - 0.12 * across * across / inner) + positive(across - inner)
    arm = np.abs(y + 0.05) + positive(inner + 2 * t["glasses_w"] - across)
    frame = t["glasses_thick"] + 0.004 - np.minimum(np.minimum(np.abs(edge), bridge), arm)
    lens = scene.soft(-edge)
    scene.paint(lens * np.where(t["shades"] > 0, np.float32(0.93), np.float32(0.06)), _colour(0.012, 0.012, 0.012))
    streak = bump(((x - 0.4 * y - 0.3 * t["light_x"]) / 0.10) ** 2) * (0.18 * t["key"])
    scene.canvas[:] += (lens * streak)[:, None]
    metal = _FRAMES[np.minimum(t["glasses_colour"] * 5, 4).astype(int).ravel()]
    scene.paint(scene.soft(frame) * (scene.rho < 1.02), metal.reshape(-1, 3, 1, 1))
