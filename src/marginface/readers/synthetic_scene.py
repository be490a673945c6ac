"""Where everything is in a procedural photograph: the posed head, the layers painted on. For `synthetic_render`.

One ray a pixel meets the head, an ellipsoid whose girth varies with height. It is put into the frame as alignment puts
a real face: through its five points and the usual template. Shapes: planes (B, H, W), colours (B, 3, 1, 1), canvas
(B, 3, H, W), traits (B, 1, 1), spots (B,); float32, spots complex. Whole frames are worked on in place where they can
be: fewer fresh planes, less traffic between caches and memory, which is what threads compete for. Lengths in head units (see `synthetic_traits`).
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from marginface.readers.synthetic_traits import Array, Traits

# where the five points lie on average: InsightFace's 112x112 template, a little smaller so that jaw and hair show
CENTRE = 0.5 + 0.54j
TEMPLATE = CENTRE + (0.86 / 112) * (
    np.array([38.2946 + 51.6963j, 73.5318 + 51.5014j, 56.0252 + 71.7366j, 41.5493 + 92.3655j, 70.7299 + 92.2041j])
    - (56 + 64j)
)

_PAINTED = ("relief", "canvas")  # what features may change


@dataclass
class Scene:
    """A batch of photographs in the making, or a window of some of them."""

    t: Traits
    spots: dict[str, Array]  # where features are in the frame, in pixels
    anchors: Array  # (B, 6, 1, 1): the properties of one number an image
    layers: dict[str, Array]  # (B, planes, H, W): those of one number a pixel, in groups that are wanted together

    px = property(lambda self: self.anchors[:, 0], doc="pixels a unit")
    nose_x = property(lambda self: self.anchors[:, 1], doc="the surface point that the tip of the nose covers")
    nose_y = property(lambda self: self.anchors[:, 2])
    left_ear = property(lambda self: self.anchors[:, 3], doc="u of the left ear")
    right_ear = property(lambda self: self.anchors[:, 4], doc="u of the right ear")
    ear_y = property(lambda self: self.anchors[:, 5], doc="v of both")

    u = property(lambda self: self.layers["image"][:, 0], doc="image plane, relative to the head's centre")
    v = property(lambda self: self.layers["image"][:, 1])
    x = property(lambda self: self.layers["surface"][:, 0], doc="the point of the head's surface that is seen there")
    y = property(lambda self: self.layers["surface"][:, 1])
    rho = property(lambda self: self.layers["surface"][:, 2], doc="1 on the silhouette, 0 in the middle")
    depth = property(lambda self: self.layers["relief"][:, 0], doc="towards the viewer")
    ink = property(lambda self: self.layers["relief"][:, 1], doc="share of light that creases, lashes, nostrils take")
    canvas = property(lambda self: self.layers["canvas"], doc="linear-light RGB")

    def soft(self, distance: Array) -> Array:
        """Coverage of a pixel by a shape with this signed distance (positive inside), which it replaces."""
        distance *= self.px
        distance += 0.5
        return share(distance)

    def paint(self, mask: Array, colour: Array, texture: Array | None = None) -> None:
        """Covers the canvas with a colour, times a plane of texture if given."""
        step = (colour if texture is None else colour * texture[:, None]) - self.canvas
        step *= mask[:, None]
        self.layers["canvas"] += step

    def rows(self, part: slice) -> "Scene":
        """The same photographs, some of their rows: views, so that what is painted stays."""
        return replace(self, layers={name: layer[:, :, part] for name, layer in self.layers.items()})

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
        tops = np.round(at.imag - high / 2).clip(0, frame - high).astype(int)
        lefts = np.round(at.real - wide / 2).clip(0, frame - wide).astype(int)
        where = [
            (i, slice(None), slice(top, top + high), slice(left, left + wide))
            for i, top, left in zip(batch.tolist(), tops.tolist(), lefts.tolist(), strict=True)
        ]
        cut = _Cut(self.layers, where)
        if chosen is None:
            draw(Scene(self.t, {}, self.anchors, cut))
        else:
            draw(Scene(self.t[batch], {}, self.anchors[batch], cut))
        for name in cut.keys() & set(_PAINTED):
            for drawn, place in zip(cut[name], where, strict=True):
                self.layers[name][place] = drawn


class _Cut(dict[str, Array]):
    """The layers of a window, each cut out when it is first asked for: few features want all of them."""

    def __init__(self, whole: dict[str, Array], where: list[tuple[int, slice, slice, slice]]) -> None:
        self.whole, self.where = whole, where

    def __missing__(self, name: str) -> Array:
        layer = self.whole[name]
        cut = self[name] = np.stack([layer[place] for place in self.where])
        return cut


class Pose:
    """Turned heads: from points in space to the image plane and back along the ray."""

    def __init__(self, t: Traits) -> None:
        self.t = t
        sy, cy = np.sin(t["yaw_n"]), np.cos(t["yaw_n"])
        sp, cp = np.sin(t["pitch_n"]), np.cos(t["pitch_n"])
        a, b, c = t["head_width"], t["head_height"], t["head_depth"]
        # ray (u, v, w) in the head's frame, each axis in its radius: |u eu + v ev + w ew| = 1 on the surface
        eu = cy / a, sp * sy / b, cp * sy / c
        ev = 0 * cy, cp / b, -sp / c
        ew = -sy / a, sp * cy / b, cp * cy / c
        ww, wu, wv = _dot(ew, ew), _dot(ew, eu), _dot(ew, ev)
        self.turn = np.stack([sy, cy, sp, cp])
        self.square = np.stack([_dot(eu, eu) - wu * wu / ww, 2 * (_dot(eu, ev) - wu * wv / ww)])
        self.square = np.concatenate([self.square, [_dot(ev, ev) - wv * wv / ww]])
        self.ray = np.stack([ww, wu / ww, wv / ww])

    def __getitem__(self, part: slice) -> "Pose":
        """Some of the heads."""
        some = copy(self)
        some.t, some.turn = self.t[part], self.turn[:, part]
        some.square, some.ray = self.square[:, part], self.ray[:, part]
        return some

    def project(self, x: Array, y: Array, out: Array | float = 0.0) -> tuple[Array, Array]:
        """Where the surface point (x, y), raised by `out`, is seen in the image plane."""
        t = self.t
        flat = 1 - (x / t["head_width"]) ** 2 - (y / t["head_height"]) ** 2
        return self.project_free(x, y, t["head_depth"] * np.sqrt(np.clip(flat, 0.01, 1)) + out)

    def project_free(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        sy, cy, sp, cp = self.turn
        v = cp * y - sp * z
        return (cy * x + sy * (sp * y + cp * z)) * _girth(self.t, v), v

    def cast(self, u: Array, v: Array, out: Sequence[Array] | None = None) -> tuple[Array, Array, Array, Array]:
        """Surface x and y, rho and depth of what is seen at (u, v); beyond the silhouette they go on smoothly.

        They are left in the four planes of `out`, if given.
        """
        (sy, cy, sp, cp), (uu, uv, vv), (ww, along_u, along_v) = self.turn, self.square, self.ray
        x, y, rho, depth = [np.empty_like(u) for _ in range(4)] if out is None else out
        np.divide(u, _girth(self.t, v), out=x)
        np.multiply(x, uu, out=rho)
        rho += np.multiply(v, uv, out=y)
        rho *= x
        np.multiply(v, vv, out=y)
        y *= v
        rho += y
        np.subtract(1, rho, out=depth)
        depth.clip(0, np.inf, out=depth)
        depth /= ww
        np.sqrt(depth, out=depth)
        depth -= np.multiply(x, along_u, out=y)
        depth -= np.multiply(v, along_v, out=y)
        np.multiply(x, sp * sy, out=y)
        y += (sp * cy) * depth
        y += cp * v
        x *= cy
        x -= sy * depth
        rho += 1e-6
        return x, y, np.sqrt(rho, out=rho), depth


@dataclass
class Placement:
    """Where the heads of many photographs are in their frames: all that is one number an image, in one go."""

    t: Traits
    size: int
    pose: Pose
    view: tuple[Array, Array]  # (N, 1, 1) complex, turn and shift from shares of the frame to the image plane
    spots: dict[str, Array]
    anchors: Array
    points: Array  # (N, 5, 2) float32, in pixels

    def scene(self, part: slice) -> Scene:
        """Some of the photographs, with the head in place, unpainted."""
        grid = (np.arange(self.size) + 0.5) / self.size
        turn, shift = (each[part] for each in self.view)
        pose, count = self.pose[part], len(turn)
        shapes = {"image": 2, "surface": 3, "canvas": 3}
        layers = {name: np.empty((count, planes, self.size, self.size), np.float32) for name, planes in shapes.items()}
        layers["relief"] = np.zeros((count, 2, self.size, self.size), np.float32)
        u, v = layers["image"].swapaxes(0, 1)
        _plane(turn.real * grid + shift.real, -turn.imag * grid, out=u)
        _plane(turn.imag * grid + shift.imag, turn.real * grid, out=v)
        seen = (*layers["surface"].swapaxes(0, 1), layers["relief"][:, 0])
        pose.cast(u, v, out=seen)
        spots = {name: spot[part] for name, spot in self.spots.items()}
        return Scene(pose.t, spots, self.anchors[part], layers)


def place(t: Traits, size: int) -> Placement:
    """Puts heads into frames (size, size) by their five points."""
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
    anchors = [np.abs(turn) * size, *pose.cast(*nose)[:2], left_ear[0], right_ear[0], left_ear[1]]
    found = pixel(where)
    return Placement(
        t,
        size,
        pose,
        (1 / turn, -shift / turn),
        spots={name: pixel(_complex(spot))[:, 0] for name, spot in spots.items()},
        anchors=np.stack([anchor.astype(np.float32) for anchor in anchors], axis=1),
        points=np.stack([found.real, found.imag], axis=-1).astype(np.float32),
    )


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
    at = v * 0.55
    at.clip(-1.2, 1.2, out=at)
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


def _plane(along_x: Array, along_y: Array, out: Array) -> None:
    np.add(along_x.astype(np.float32), along_y.astype(np.float32).transpose(0, 2, 1), out=out)


def _dot(first: tuple[Array, ...], second: tuple[Array, ...]) -> Array:
    product: Array = first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
    return product


def bump(squared: Array) -> Array:
    """1 in the middle, 0 from squared radius 1 on, smooth. Replaces its argument."""
    np.subtract(1, squared, out=squared)
    squared.clip(0, np.inf, out=squared)
    return np.square(squared, out=squared)


def oval(x: Array, y: Array, width: Array | float, height: Array | float) -> Array:
    """The bump of an ellipse with these half axes about (0, 0)."""
    across: Array = x / width
    across *= across
    down = y / height
    down *= down
    across += down
    return bump(across)


def share(values: Array) -> Array:
    """Clips to [0, 1], in place."""
    return values.clip(0, 1, out=values)


def positive(values: Array) -> Array:
    return values.clip(
        0, np.inf
    )  # more than twice as fast as np.maximum(values, 0), and np.clip takes 2 us to get here
