"""Where everything is in a procedural photograph: the posed head, the layers painted on. For `synthetic_render`.

One ray a pixel meets the head, an ellipsoid whose girth varies with height. It is put into the frame as alignment puts
a real face: through its five points and the usual template. Shapes: planes (B, H, W), colours (B, 3, 1, 1), canvas
(B, 3, H, W), traits (B, 1, 1); float32. Lengths in head units (see `synthetic_traits`).

Whole frames are worked on in place where they can be: fewer fresh planes make less traffic between caches and memory,
which is what threads compete for.
"""

from collections.abc import Callable
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
    spots: dict[str, list[tuple[float, float]]]  # where features are in the frame, (x, y) in pixels
    anchors: Array  # (B, 6, 1, 1): the properties of one number an image
    v_lines: tuple[Array, Array]  # (B, 1, W) and (B, 1, H): v of the whole frame is their sum
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
    rho = property(lambda self: self.layers["silhouette"][:, 0], doc="1 on the silhouette, 0 in the middle")
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
        canvas, bare = self.canvas, (1 - mask)[:, None]
        if texture is None:
            canvas -= colour
            canvas *= bare
            canvas += colour
        else:
            canvas *= bare
            canvas += colour * (mask * texture)[:, None]

    def waves(self, frequency: float) -> Array:
        """The sine of `frequency` v, out of step by the trait "strand"."""
        along_x, along_y = self.v_lines
        return ripple(frequency * along_x, frequency * along_y + self.t["strand"])

    def rows(self, part: slice) -> "Scene":
        """The same photographs, some of their rows: views, so that what is painted stays."""
        return replace(self, layers={name: layer[:, :, part] for name, layer in self.layers.items()})

    def within(
        self, draw: "Callable[[Scene], None]", spot: str, height: float, width: float, chosen: Array | None = None
    ) -> None:
        """Lets `draw` work on a window about a spot (shares of the frame), in `chosen` images: most of the speed."""
        t, anchors, batch = self.t, self.anchors, list(range(len(self.px)))
        if chosen is not None:
            batch = np.flatnonzero(chosen).tolist()
            t, anchors = t.some(batch), anchors[batch]
        if not batch:
            return
        frame = self.canvas.shape[-1]
        high, wide = int(height * frame), int(width * frame)
        where = []
        for i in batch:
            x, y = self.spots[spot][i]
            left, top = min(max(round(x - wide / 2), 0), frame - wide), min(max(round(y - high / 2), 0), frame - high)
            where.append((i, slice(None), slice(top, top + high), slice(left, left + wide)))
        cut = _Cut(self.layers, where)
        draw(Scene(t, {}, anchors, self.v_lines, cut))
        for name in _PAINTED:
            for drawn, place in zip(cut.get(name, ()), where, strict=False):
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
        # surface x, y and depth are sums of u / girth, v and the root in `cast`
        u, v = wu / ww, wv / ww
        rows = [cy + sy * u, sy * v, -sy], [sp * (sy - cy * u), cp - sp * cy * v, sp * cy], [-u, -v, 1 + 0 * u]
        self.back = np.stack([np.concatenate(row, axis=2) for row in rows], axis=2)[:, 0]
        self.depth = 1 / ww
        self.square = np.stack([_dot(eu, eu) - wu * wu / ww, 2 * (_dot(eu, ev) - wu * wv / ww)])
        self.square = np.concatenate([self.square, [_dot(ev, ev) - wv * wv / ww]])

    def __getitem__(self, part: slice) -> "Pose":
        """Some of the heads."""
        some = copy(self)
        some.t, some.turn = self.t.some(part), self.turn[:, part]
        some.square, some.back, some.depth = self.square[:, part], self.back[part], self.depth[part]
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

    def cast(self, u: Array, v: Array) -> tuple[Array, Array]:
        """What is seen at (u, v): (B, 3, H, W) surface x, y and depth, and rho; smooth beyond the silhouette too."""
        uu, uv, vv = self.square
        ray = np.empty((len(u), 3, *u.shape[1:]), np.float32)
        x, root = ray[:, 0], ray[:, 2]
        np.divide(u, _girth(self.t, v), out=x)
        ray[:, 1] = v
        rho = x * uu
        rho += np.multiply(v, uv, out=root)
        rho *= x
        np.multiply(v, vv, out=root)
        root *= v
        rho += root
        np.subtract(1, rho, out=root)
        root.clip(0, np.inf, out=root)
        root *= self.depth
        np.sqrt(root, out=root)
        rho += 1e-6
        # one product of matrices for a dozen passes
        seen = np.matmul(self.back, ray.reshape(len(u), 3, -1)).reshape(ray.shape)
        return seen, np.sqrt(rho, out=rho)


@dataclass
class Placement:
    """Where the heads of many photographs are in their frames: all that is one number an image, in one go."""

    t: Traits
    size: int
    pose: Pose
    view: tuple[Array, Array]  # (N, 1, 1) complex, turn and shift from shares of the frame to the image plane
    spots: dict[str, list[tuple[float, float]]]
    anchors: Array
    points: Array  # (N, 5, 2) float32, in pixels

    def scene(self, part: slice) -> Scene:
        """Some of the photographs, with the head in place, unpainted."""
        grid = (np.arange(self.size) + 0.5) / self.size
        turn, shift = (each[part] for each in self.view)
        pose, count = self.pose[part], len(turn)
        v_lines = turn.imag * grid + shift.imag, turn.real * grid
        image = np.empty((count, 2, self.size, self.size), np.float32)
        ramp(turn.real * grid + shift.real, -turn.imag * grid, out=image[:, 0])
        ramp(*v_lines, out=image[:, 1])
        seen, rho = pose.cast(image[:, 0], image[:, 1])
        layers = {"image": image, "surface": seen[:, :2], "silhouette": rho[:, None]}
        layers["relief"], layers["canvas"] = np.zeros_like(image), np.empty_like(seen)
        layers["relief"][:, 0] = seen[:, 2]
        spots = {name: spot[part] for name, spot in self.spots.items()}
        return Scene(pose.t, spots, self.anchors[part], v_lines, layers)


def place(t: Traits, size: int) -> Placement:
    """Puts heads into frames (size, size) by their five points."""
    pose, zero = Pose(t), np.zeros_like(t["yaw_n"])
    corner, mouth = mouth_half_width(t), mouth_y(t)
    lips, ear = mouth + mouth_curve(t), t["head_width"] + t["ear_out"] - 0.02
    surface = {  # x, y and how far it is raised
        "left": (-t["eye_x"], zero, zero),
        "right": (t["eye_x"], zero, zero),
        "tip": (zero, t["nose_y"], t["nose_height"]),
        "left_corner": (-corner, lips, zero),
        "right_corner": (corner, lips, zero),
        "eyes": (zero, zero - 0.10, zero),
        "brow": (zero, zero - 0.75, zero),
        "nose": (zero, 0.5 * t["nose_y"], 0.4 * t["nose_height"]),
        "mouth": (zero, mouth - 0.10, zero),
        "beard": (zero, mouth + 0.15, zero),
        "mole1": (t["mole1_x"], t["mole1_y"], zero),
        "mole2": (t["mole2_x"], t["mole2_y"], zero),
    }
    u, v = pose.project(*(np.concatenate(each, axis=2) for each in zip(*surface.values(), strict=True)))
    ear_u, ear_v = pose.project_free(np.concatenate([-ear, ear], axis=2), zero + 0.12, zero - 0.1)
    seen = np.concatenate([u, ear_u], axis=2)[:, 0] + 1j * np.concatenate([v, ear_v, ear_v], axis=2)[:, 0]
    turn, shift = _align(seen[:, :5])
    wobble = ((1 + t["zoom_n"]) * np.exp(1j * t["roll_n"].astype(np.float64)))[:, 0]
    turn = turn * wobble
    shift = (shift - CENTRE) * wobble + CENTRE + (t["shift_x_n"] + 1j * t["shift_y_n"])[:, 0]
    pixels = (seen * turn + shift) * size - (0.5 + 0.5j)
    pixels = np.stack([pixels.real, pixels.imag], axis=-1)
    anchors = [np.abs(turn)[..., None] * size, *pose.cast(u[..., 2:3], v[..., 2:3])[0][:, :2].swapaxes(0, 1)]
    anchors += [ear_u[..., :1], ear_u[..., 1:], ear_v]
    return Placement(
        t,
        size,
        pose,
        view=(1 / turn[..., None], -(shift / turn)[..., None]),
        spots=dict(zip([*surface, "left_ear", "right_ear"], pixels.swapaxes(0, 1).tolist(), strict=True)),
        anchors=np.stack([anchor.astype(np.float32) for anchor in anchors], axis=1),
        points=pixels[:, :5].astype(np.float32),
    )


def colour(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue], np.float32).reshape(1, 3, 1, 1)


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
    """Least-squares similarity (turn, shift), complex (N, 1), that takes (N, 5) points onto the template."""
    source = points - points.mean(axis=1, keepdims=True)
    turn = (source.conj() * (TEMPLATE - TEMPLATE.mean())).sum(axis=1) / (np.abs(source) ** 2).sum(axis=1)
    shift = TEMPLATE.mean() - turn * points.mean(axis=1)
    return turn[:, None], shift[:, None]


def _dot(first: tuple[Array, ...], second: tuple[Array, ...]) -> Array:
    product: Array = first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
    return product


def ramp(along_x: Array, along_y: Array, out: Array | None = None) -> Array:
    """(B, H, W) sums of (B, 1, W) and (B, 1, H). As a product of matrices: numpy's sum takes seven times as long."""
    return _outer(along_y, np.ones_like(along_y), np.ones_like(along_x), along_x, out)


def ripple(along_x: Array, along_y: Array) -> Array:
    """Sines of such sums, by the addition theorem."""
    return _outer(np.sin(along_y), np.cos(along_y), np.cos(along_x), np.sin(along_x))


def _outer(y1: Array, y2: Array, x1: Array, x2: Array, out: Array | None = None) -> Array:
    rows, columns = np.concatenate([y1, y2], axis=1).swapaxes(1, 2), np.concatenate([x1, x2], axis=1)
    product: Array = np.matmul(rows.astype(np.float32), columns.astype(np.float32), out=out)
    return product


def bump(squared: Array) -> Array:
    """1 in the middle, 0 from squared radius 1 on, smooth. Replaces its argument."""
    np.subtract(1, squared, out=squared)
    squared.clip(0, np.inf, out=squared)
    squared *= squared
    return squared


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
    clipped: Array = values.clip(0, np.inf)  # twice as fast as np.maximum(values, 0); the method spares a call
    return clipped
