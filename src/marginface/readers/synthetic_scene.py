"""Where everything is in a procedural photograph: the posed head, the layers painted on. For `synthetic_render`.

One ray a pixel meets the head, an ellipsoid whose girth varies with height. It is put into the frame as alignment puts
a real face: through its five points and the usual template. Shapes: planes (B, H, W), colours (B, 3, 1, 1), canvas
(B, 3, H, W), traits (B, 1, 1), spots (B,); float32, spots complex. Lengths in head units (see `synthetic_traits`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from marginface.readers.synthetic_traits import Array, Traits

# where the five points lie on average: InsightFace's 112x112 template, a little smaller so that jaw and hair show
CENTRE = 0.5 + 0.54j
TEMPLATE = CENTRE + (0.86 / 112) * (
    np.array([38.2946 + 51.6963j, 73.5318 + 51.5014j, 56.0252 + 71.7366j, 41.5493 + 92.3655j, 70.7299 + 92.2041j])
    - (56 + 64j)
)

_PAINTED = 5  # the planes from here on are painted: depth, ink, canvas


@dataclass
class Scene:
    """A batch of photographs in the making, or a window of some of them."""

    t: Traits
    spots: dict[str, Array]  # where features are in the frame, in pixels
    anchors: Array  # (B, 6, 1, 1): the properties of one number an image
    planes: Array  # (B, 10, H, W): the properties of one number a pixel, together so that a window is one copy

    px = property(lambda self: self.anchors[:, 0], doc="pixels a unit")
    nose_x = property(lambda self: self.anchors[:, 1], doc="the surface point that the tip of the nose covers")
    nose_y = property(lambda self: self.anchors[:, 2])
    left_ear = property(lambda self: self.anchors[:, 3], doc="u of the left ear")
    right_ear = property(lambda self: self.anchors[:, 4], doc="u of the right ear")
    ear_y = property(lambda self: self.anchors[:, 5], doc="v of both")

    u = property(lambda self: self.planes[:, 0], doc="image plane, relative to the head's centre")
    v = property(lambda self: self.planes[:, 1])
    x = property(lambda self: self.planes[:, 2], doc="the point of the head's surface that is seen there")
    y = property(lambda self: self.planes[:, 3])
    rho = property(lambda self: self.planes[:, 4], doc="1 on the silhouette, 0 in the middle")
    depth = property(lambda self: self.planes[:, 5], doc="towards the viewer")
    ink = property(lambda self: self.planes[:, 6], doc="share of light swallowed by creases, lashes, nostrils")
    canvas = property(lambda self: self.planes[:, 7:], doc="linear-light RGB")

    def soft(self, distance: Array) -> Array:
        """Coverage of a pixel by a shape with this signed distance (positive inside)."""
        covered: Array = np.clip(distance * self.px + 0.5, 0, 1)
        return covered

    def paint(self, mask: Array, colour: Array, texture: Array | None = None) -> None:
        """Covers the canvas with a colour, times a plane of texture if given. One channel at a time: caches."""
        for channel in range(3):
            layer, flat = self.canvas[:, channel], colour[:, channel]
            step = (flat if texture is None else flat * texture) - layer
            step *= mask
            layer += step

    def within(
        self, draw: "Callable[[Scene], None]", spot: str, height: float, width: float, chosen: Array | None = None
    ) -> None:
        """Lets `draw` work on a window about a spot (shares of the frame), in `chosen` images: most of the speed."""
        batch = np.arange(len(self.px)) if chosen is None else np.flatnonzero(chosen)
        if not len(batch):
            return
        frame = self.canvas.shape[-1]
        high, wide = int(height * frame), int(width * frame)
        at = self.spots[spot][batch]
        tops = np.clip(np.round(at.imag - high / 2), 0, frame - high).astype(int)
        lefts = np.clip(np.round(at.real - wide / 2), 0, frame - wide).astype(int)
        where = [(slice(r, r + high), slice(c, c + wide)) for r, c in zip(tops, lefts, strict=True)]
        planes = np.empty((len(batch), self.planes.shape[1], high, wide), np.float32)
        for out, i, (rows, columns) in zip(planes, batch, where, strict=True):
            out[:] = self.planes[i, :, rows, columns]
        if chosen is None:
            part = Scene(self.t, {}, self.anchors, planes)
        else:
            part = Scene(self.t[batch], {}, self.anchors[batch], planes)
        draw(part)
        for drawn, i, (rows, columns) in zip(planes, batch, where, strict=True):
            self.planes[i, _PAINTED:, rows, columns] = drawn[_PAINTED:]


class Pose:
    """A turned head: from points in space to the image plane and back along the ray."""

    def __init__(self, t: Traits) -> None:
        self.t = t
        sy, cy = np.sin(t["yaw_n"]), np.cos(t["yaw_n"])
        sp, cp = np.sin(t["pitch_n"]), np.cos(t["pitch_n"])
        self.turn = sy, cy, sp, cp
        a, b, c = t["head_width"], t["head_height"], t["head_depth"]
        # ray (u, v, w) in the head's frame, each axis in its radius: |u eu + v ev + w ew| = 1 on the surface
        eu = cy / a, sp * sy / b, cp * sy / c
        ev = 0 * cy, cp / b, -sp / c
        ew = -sy / a, sp * cy / b, cp * cy / c
        self.ww, self.wu, self.wv = _dot(ew, ew), _dot(ew, eu), _dot(ew, ev)
        self.uu = _dot(eu, eu) - self.wu * self.wu / self.ww
        self.uv = _dot(eu, ev) - self.wu * self.wv / self.ww
        self.vv = _dot(ev, ev) - self.wv * self.wv / self.ww

    def project(self, x: Array, y: Array, out: Array | float = 0.0) -> tuple[Array, Array]:
        """Where the surface point (x, y), raised by `out`, is seen in the image plane."""
        t = self.t
        flat = 1 - (x / t["head_width"]) ** 2 - (y / t["head_height"]) ** 2
        return self.project_free(x, y, t["head_depth"] * np.sqrt(np.clip(flat, 0.01, 1)) + out)

    def project_free(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        sy, cy, sp, cp = self.turn
        v = cp * y - sp * z
        return (cy * x + sy * (sp * y + cp * z)) * _girth(self.t, v), v

    def cast(self, u: Array, v: Array) -> tuple[Array, Array, Array, Array]:
        """Surface x and y, rho and depth of what is seen at (u, v); beyond the silhouette they go on smoothly."""
        sy, cy, sp, cp = self.turn
        u = u / _girth(self.t, v)
        square = self.uu * u
        square += (2 * self.uv) * v
        square *= u
        square += self.vv * v * v
        depth = np.clip(1 - square, 0, 1)
        depth /= self.ww
        np.sqrt(depth, out=depth)
        depth -= u * (self.wu / self.ww)
        depth -= v * (self.wv / self.ww)
        y = sy * u
        y += cy * depth
        y *= sp
        y += cp * v
        u *= cy
        u -= sy * depth
        return u, y, np.sqrt(np.clip(square, 1e-6, np.inf)), depth


def compose(t: Traits, size: int) -> tuple[Scene, Array]:
    """An unpainted scene (size, size) with the head in place, and its float32 (B, 5, 2) points in pixels."""
    pose, zero = Pose(t), np.zeros_like(t["yaw_n"])
    corner, mouth, bend = mouth_half_width(t), mouth_y(t), mouth_curve(t)
    nose = pose.project(zero, t["nose_y"], t["nose_height"])
    points = [pose.project(-t["eye_x"], zero), pose.project(t["eye_x"], zero), nose]
    points += [pose.project(-corner, mouth + bend), pose.project(corner, mouth + bend)]
    where = np.concatenate([_complex(point) for point in points], axis=1)
    turn, shift = _align(where)
    wobble = (1 + t["zoom_n"]) * np.exp(1j * t["roll_n"].astype(np.float64))
    turn, shift = turn * wobble, (shift - CENTRE) * wobble + CENTRE + t["shift_x_n"] + 1j * t["shift_y_n"]

    def pixel(place: Array) -> Array:
        found: Array = (place * turn[:, 0] + shift[:, 0]) * size - (0.5 + 0.5j)
        return found

    ear = t["head_width"] + t["ear_out"] - 0.02
    left_ear, right_ear = (pose.project_free(side * ear, zero + 0.12, zero - 0.1) for side in (-1, 1))
    spots = {
        "eyes": pose.project(zero, zero - 0.10),
        "brow": pose.project(zero, zero - 0.75),
        "nose": pose.project(zero, 0.5 * t["nose_y"], 0.4 * t["nose_height"]),
        "mouth": pose.project(zero, mouth - 0.10),
        "mole1": pose.project(t["mole1_x"], t["mole1_y"]),
        "mole2": pose.project(t["mole2_x"], t["mole2_y"]),
        "left_ear": left_ear,
        "right_ear": right_ear,
    }
    grid = (np.arange(size) + 0.5) / size
    inverse, start = 1 / turn, -shift / turn
    u = _plane(inverse.real * grid + start.real, -inverse.imag * grid)
    v = _plane(inverse.imag * grid + start.imag, inverse.real * grid)
    planes = np.zeros((len(t), 10, size, size), np.float32)
    for layer, values in enumerate((u, v, *pose.cast(u, v))):
        planes[:, layer] = values
    anchors = [np.abs(turn) * size, *pose.cast(*nose)[:2], left_ear[0], right_ear[0], left_ear[1]]
    scene = Scene(
        t,
        spots={name: pixel(_complex(spot))[:, 0] for name, spot in spots.items()},
        anchors=np.stack([anchor.astype(np.float32) for anchor in anchors], axis=1),
        planes=planes,
    )
    found = pixel(where)
    return scene, np.stack([found.real, found.imag], axis=-1).astype(np.float32)


def mouth_y(t: Traits) -> Array:
    height: Array = t["nose_y"] + t["mouth_gap"]
    return height


def mouth_half_width(t: Traits) -> Array:
    half: Array = t["mouth_width"] * (1 + 0.16 * np.maximum(t["smile"], 0) + t["purse"])
    return half


def mouth_curve(t: Traits) -> Array:
    """How far the corners lie below the middle of the mouth."""
    curve: Array = t["lip_curve"] - 0.10 * t["smile"]
    return curve


def _girth(t: Traits, v: Array) -> Array:
    """How much wider than the ellipsoid the head is at this height: the jaw, the chin and the temples."""
    at = np.clip(v * 0.55, -1.2, 1.2)
    girth: Array = at * (0.5 * t["chin"])
    girth += 0.5 * (t["jaw"] - t["temple"] + t["chin"])
    girth *= at
    girth += 0.5 * (t["jaw"] + t["temple"])
    girth *= at
    girth *= at
    girth += 1
    return girth


def _align(points: Array) -> tuple[Array, Array]:
    """Least-squares similarity (turn, shift), complex (B, 1, 1), that takes (B, 5) points onto the template."""
    source = points - points.mean(axis=1, keepdims=True)
    turn = (source.conj() * (TEMPLATE - TEMPLATE.mean())).sum(axis=1) / (np.abs(source) ** 2).sum(axis=1)
    shift = TEMPLATE.mean() - turn * points.mean(axis=1)
    return turn[:, None, None], shift[:, None, None]


def _complex(point: tuple[Array, Array]) -> Array:
    flat: Array = (point[0].astype(np.float64) + 1j * point[1])[:, 0]
    return flat


def _plane(along_x: Array, along_y: Array) -> Array:
    plane: Array = along_x.astype(np.float32) + along_y.astype(np.float32).transpose(0, 2, 1)
    return plane


def _dot(first: tuple[Array, ...], second: tuple[Array, ...]) -> Array:
    product: Array = first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
    return product


def bump(squared: Array) -> Array:
    """1 in the middle, 0 from squared radius 1 on, smooth."""
    inside = np.clip(1 - squared, 0, np.inf)
    smooth: Array = inside * inside
    return smooth


def positive(values: Array) -> Array:
    clipped: Array = np.clip(values, 0, np.inf)  # three times as fast as np.maximum(values, 0)
    return clipped
