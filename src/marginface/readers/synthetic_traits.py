"""Who the procedural people are and how each photograph of them differs. Drawn here, painted by `synthetic_render`.

Everything is drawn from a counter-based hash of (seed, identity, image), so a trait depends on nothing else:
not on the order of reading, the batch, or the number of people in the set. Lengths are in head units: one unit is
about the distance between two eyes, x to the right, y downwards, the origin between the eyes at the head's centre.
"""

import numpy as np

Array = np.ndarray
Draws = dict[str, Array]  # name -> (N,), colours (N, 3)


class Traits(dict[str, Array]):
    """Traits of N photographs by name: float32 (N, 1, 1), colours (N, 3, 1, 1), made of the table when asked for.

    A trait lies in one piece, which halves what sums over a few photographs cost, and some photographs are taken out
    of all traits at once.
    """

    def __init__(self, table: Array, rows: dict[str, int | slice]) -> None:
        self.table, self.rows = table, rows  # (traits, N), and which rows of it a name has

    @property
    def photographs(self) -> int:
        return len(self.table[0])

    def __missing__(self, name: str) -> Array:
        found = self[name] = self.table[self.rows[name]].T[..., None, None]
        return found

    def some(self, which: slice | list[int]) -> "Traits":
        return Traits(self.table[:, which], self.rows)


# name: (low, high), uniform over people
PERSON = {
    "masculine": (0.0, 1.0),
    "age": (0.0, 1.0),
    "head_width": (1.02, 1.24),
    "head_height": (1.70, 1.94),
    "head_depth": (1.12, 1.34),
    "jaw": (-0.12, 0.24),
    "chin": (-0.15, 0.40),
    "temple": (0.10, 0.42),
    "eye_x": (0.44, 0.58),
    "eye_width": (0.21, 0.295),
    "eye_open": (0.085, 0.165),
    "eye_low": (0.035, 0.080),
    "eye_tilt": (-0.14, 0.22),
    "eye_peak": (-0.45, 0.45),
    "eye_depth": (0.00, 0.10),
    "iris": (0.086, 0.118),
    "crease": (0.03, 0.10),
    "crease_ink": (0.0, 0.6),
    "brow_y": (0.27, 0.46),
    "brow_length": (0.27, 0.40),
    "brow_thick": (0.028, 0.075),
    "brow_arch": (0.0, 0.13),
    "brow_tilt": (-0.16, 0.16),
    "brow_gap": (-0.05, 0.06),
    "brow_ink": (0.55, 0.95),
    "nose_y": (0.50, 0.76),
    "nose_width": (0.17, 0.33),
    "nose_height": (0.26, 0.50),
    "nose_bridge": (0.08, 0.17),
    "nose_hook": (-0.10, 0.12),
    "nose_lift": (-0.03, 0.07),
    "nose_tip": (0.13, 0.22),
    "mouth_gap": (0.34, 0.55),
    "mouth_width": (0.30, 0.50),
    "lip_upper": (0.035, 0.115),
    "lip_lower": (0.060, 0.150),
    "lip_bow": (0.0, 0.75),
    "lip_curve": (-0.05, 0.05),
    "lip_red": (0.15, 0.85),
    "cheek": (0.00, 0.16),
    "cheek_y": (0.45, 0.75),
    "chin_bump": (0.0, 0.14),
    "fold": (0.0, 0.45),
    "blush": (0.0, 0.30),
    "ear_size": (0.22, 0.36),
    "ear_out": (0.00, 0.14),
    "skin": (0.0, 1.0),
    "undertone": (-0.6, 1.0),
    "hair_tone": (0.0, 1.0),
    "hair_red": (0.0, 1.0),
    "hair_line": (-1.22, -0.78),
    "hair_round": (0.92, 1.20),
    "hair_part": (-0.5, 0.5),
    "hair_volume": (0.04, 0.22),
    "hair_length": (0.0, 1.0),
    "hair_curl": (0.0, 1.0),
    "eye_colour": (0.0, 1.0),
    "beard": (0.0, 1.0),
    "moustache": (0.0, 1.0),
    "glasses": (0.0, 1.0),
    "glasses_w": (0.29, 0.40),
    "glasses_h": (0.19, 0.32),
    "glasses_round": (0.3, 1.0),
    "glasses_thick": (0.014, 0.042),
    "glasses_colour": (0.0, 1.0),
    "freckles": (0.0, 1.0),
    "mole1_x": (-0.75, 0.75),
    "mole1_y": (0.15, 1.45),
    "mole1": (-0.035, 0.045),
    "mole2_x": (-0.8, 0.8),
    "mole2_y": (-0.8, 0.6),
    "mole2": (-0.05, 0.04),
}

# name: (low, high), uniform over photographs; names ending in _n are normal with (mean, standard deviation)
PHOTO = {
    "yaw_n": (0.0, 0.26),
    "pitch_n": (0.0, 0.13),
    "roll_n": (0.0, 0.07),
    "zoom_n": (0.0, 0.05),
    "shift_x_n": (0.0, 0.018),
    "shift_y_n": (0.0, 0.018),
    "smile": (-0.35, 1.0),
    "open": (-0.9, 1.0),
    "purse": (-0.06, 0.05),
    "lid_n": (0.95, 0.13),
    "blink": (0.0, 1.0),
    "wink_n": (0.0, 0.04),
    "raise_n": (0.0, 0.03),
    "frown_n": (0.0, 0.02),
    "gaze_x_n": (0.0, 0.30),
    "gaze_y_n": (0.0, 0.14),
    "light_x": (-1.5, 1.5),
    "light_y": (-1.1, 0.5),
    "light_z": (0.25, 1.3),
    "key": (0.35, 1.1),
    "ambient": (0.30, 0.70),
    "gloss": (0.0, 0.22),
    "warm_n": (0.0, 0.13),
    "tint_n": (0.0, 0.05),
    "exposure_n": (0.0, 0.14),
    "grey": (-3.0, 1.0),
    "haze": (-0.08, 0.10),
    "back_red": (0.03, 0.85),
    "back_green": (0.03, 0.85),
    "back_blue": (0.03, 0.85),
    "back2_red": (0.03, 0.85),
    "back2_green": (0.03, 0.85),
    "back2_blue": (0.03, 0.85),
    "back_angle": (0.0, 6.2832),
    "back_phase": (0.0, 6.2832),
    "back_wave": (1.0, 7.0),
    "back_hard": (0.4, 6.0),
    "cloth_red": (0.03, 0.80),
    "cloth_green": (0.03, 0.80),
    "cloth_blue": (0.03, 0.80),
    "collar": (0.0, 1.0),
    "restyle": (0.0, 1.0),
    "style_line": (-0.16, 0.16),
    "style_part": (-0.35, 0.35),
    "style_volume": (-0.04, 0.10),
    "style_length": (0.0, 1.0),
    "fringe": (0.0, 1.0),
    "strand": (0.0, 6.2832),
    "hat": (0.0, 1.0),
    "hat_red": (0.03, 0.75),
    "hat_green": (0.03, 0.75),
    "hat_blue": (0.03, 0.75),
    "glasses_on": (0.0, 1.0),
    "sunglasses": (0.0, 1.0),
    "lipstick": (0.0, 1.0),
    "stubble": (0.0, 1.0),
    "block": (0.0, 1.0),
    "block_angle": (0.0, 6.2832),
    "block_size": (0.15, 0.75),
    "block_red": (0.03, 0.80),
    "block_green": (0.03, 0.80),
    "block_blue": (0.03, 0.80),
    "blur": (-0.9, 1.3),
    "noise": (0.002, 0.022),
    "noise_x": (0.0, 1.0),
    "noise_y": (0.0, 1.0),
}

SKIN = (
    (0.94, 0.79, 0.69),
    (0.91, 0.73, 0.60),
    (0.84, 0.63, 0.48),
    (0.68, 0.47, 0.34),
    (0.48, 0.32, 0.23),
    (0.33, 0.22, 0.17),
)
HAIR = ((0.07, 0.06, 0.06), (0.17, 0.11, 0.08), (0.33, 0.21, 0.13), (0.52, 0.36, 0.20), (0.82, 0.66, 0.40))
EYES = (
    (0.16, 0.09, 0.05),
    (0.33, 0.19, 0.09),
    (0.45, 0.33, 0.15),
    (0.36, 0.46, 0.28),
    (0.30, 0.50, 0.66),
    (0.50, 0.58, 0.62),
)


def draw(seed: int, identities: Array, images: Array) -> Traits:
    """Traits of the photographs with these int64 (N,) identities and image numbers."""
    person = _uniform(_mix(_mix(np.full_like(identities, seed), 1), identities), PERSON)
    photo = _uniform(_mix(_mix(_mix(np.full_like(identities, seed), 2), identities), images), PHOTO)
    drawn = _photographed(_plausible(person), photo)
    rows: dict[str, int | slice] = {}
    count = 0
    for name, values in drawn.items():
        rows[name] = count if values.ndim == 1 else slice(count, count + 3)
        count += 1 if values.ndim == 1 else 3
    table = np.empty((count, len(identities)), np.float32)
    for name, values in drawn.items():
        table[rows[name]] = values.T
    return Traits(table, rows)


def _plausible(person: Draws) -> Draws:
    """Ties traits together that go together in people, and turns tones into linear-light colours."""
    male, age = person["masculine"] > 0.5, person["age"]
    beard, moustache = person["beard"], person["moustache"]
    pale = 1 - person["skin"] ** 1.4
    hair = _palette(person["hair_tone"] ** 1.3 * (0.2 + 0.8 * pale), HAIR)
    hair[:, 0] += 0.10 * person["hair_red"] ** 4
    grey = np.clip((age - 0.72) * 3.2, 0, 0.85)[:, None]
    skin = _palette(person["skin"] ** 1.4, SKIN)
    skin += person["undertone"][:, None] * np.array((0.02, 0.0, -0.02), np.float32)
    return person | {
        "skin_rgb": skin**2,
        "hair_rgb": (hair + grey * (0.72 - hair)) ** 2,
        "brow_rgb": (hair * 0.72 + 0.5 * grey * (0.5 - hair * 0.72)) ** 2,
        "eye_rgb": _palette(person["eye_colour"] * (0.3 + 0.7 * pale), EYES) ** 2,
        "brow_thick": person["brow_thick"] * np.where(male, 1.15, 0.85),
        "lip_red": person["lip_red"] * np.where(male, 0.45, 1.0),
        "lash": np.where(male, 0.016, 0.026),
        "jaw": person["jaw"] + np.where(male, 0.05, -0.04),
        "bald": (male & (person["hair_length"] < 0.14)).astype(np.float32),
        "hair_length": np.where(male, person["hair_length"] * 0.35, 0.25 + 0.75 * person["hair_length"]),
        "beard": np.where(male & (beard > 0.55), 0.35 + 0.65 * (beard - 0.55) / 0.45, 0.0),
        "moustache": np.where(male & (moustache > 0.62), 0.85, 0.0),
        "fold": person["fold"] * (0.35 + 0.65 * age),
        "wrinkle": np.clip(age - 0.55, 0, 1) * 0.9,
        "freckles": np.clip(person["freckles"] - 0.72, 0, 1) * 2.6 * (person["skin"] < 0.5),
        "wears_glasses": (person["glasses"] > 0.76).astype(np.float32),
    }


def _photographed(person: Draws, photo: Draws) -> Draws:
    """The person as this photograph shows them: hair done differently, glasses forgotten, a hat, make-up."""
    restyled = photo["restyle"] > 0.6
    length = np.where(restyled & (person["masculine"] < 0.5), photo["style_length"], person["hair_length"])
    part = np.where(restyled, photo["style_part"] * 1.5, person["hair_part"] + 0.3 * photo["style_part"])
    hat = photo["hat"] < 0.07
    hair = np.where(hat[:, None], _rgb(photo, "hat"), person["hair_rgb"])
    return (
        person
        | photo
        | {
            "hair_part": part,
            "hair_length": np.where(hat, np.minimum(length, 0.3), length),
            "hair_line": np.where(hat, -0.72, np.minimum(person["hair_line"] + photo["style_line"], -0.74)),
            "hair_volume": np.maximum(person["hair_volume"] + photo["style_volume"], 0.03),
            "hair_rgb": hair,
            "wears_hat": hat.astype(np.float32),
            "bald": person["bald"] * ~hat,
            "eye_lid": np.where(photo["blink"] < 0.03, 0.12, np.clip(photo["lid_n"], 0.5, 1.25)),
            "beard": person["beard"] * (0.75 + 0.25 * photo["stubble"]),
            "lip_red": np.where((photo["lipstick"] < 0.15) & (person["masculine"] < 0.5), 1.4, person["lip_red"]),
            "shades": (photo["sunglasses"] < 0.03).astype(np.float32),
            "wears_glasses": np.where(
                photo["sunglasses"] < 0.03, 1.0, person["wears_glasses"] * (photo["glasses_on"] < 0.8)
            ),
            "back_rgb": _rgb(photo, "back"),
            "back2_rgb": _rgb(photo, "back2"),
            "cloth_rgb": _rgb(photo, "cloth"),
            "block_rgb": _rgb(photo, "block"),
        }
    )


def _palette(tone: Array, colours: tuple[tuple[float, float, float], ...]) -> Array:
    """(N, 3) sRGB-like colours interpolated along a palette at `tone` in [0, 1]."""
    table = np.array(colours)
    at = np.clip(tone, 0, 1) * (len(table) - 1)
    return np.stack([np.interp(at, np.arange(len(table)), table[:, c]) for c in range(3)], axis=1).astype(np.float32)


def _rgb(photo: Draws, name: str) -> Array:
    """A colour of the surroundings, (N, 3): three draws, most of their saturation taken away."""
    colour = np.stack([photo[f"{name}_{c}"] for c in ("red", "green", "blue")], axis=1)
    muted: Array = (0.45 * colour + 0.55 * colour.mean(axis=1, keepdims=True)) ** 2
    return muted


def _uniform(keys: Array, table: dict[str, tuple[float, float]]) -> Draws:
    """Hashed draws for every key and name. Normal draws are sums of four uniforms: bounded at 3.5 deviations."""
    numbers = {normal: [i for i, name in enumerate(table) if name.endswith("_n") == normal] for normal in (False, True)}
    first, second = np.array(list(table.values()))[:, :, None].transpose(1, 0, 2)
    drawn = np.empty((len(table), len(keys)), np.float32)
    # all names in one go: a call of numpy costs more than the few photographs it is for
    even = numbers[False]
    drawn[even] = first[even] + (second[even] - first[even]) * _fractions(keys, 8 * np.array(even))
    bell = numbers[True]
    if bell:
        total = sum(_fractions(keys, 8 * np.array(bell) + part) for part in range(4))
        drawn[bell] = first[bell] + second[bell] * (total - 2.0) * 3**0.5
    return dict(zip(table, drawn, strict=True))


def _fractions(keys: Array, words: Array) -> Array:
    """(words, keys) uniform in [0, 1): 53 bits of each key's hash with each word."""
    fractions: Array = (_mix(keys, words[:, None]) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return fractions


def _mix(keys: Array, word: Array | int) -> Array:
    """SplitMix64 finaliser (Steele, Lea and Flood 2014) of each key joined with a word."""
    state = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.asarray(word).astype(np.uint64)
    state += np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
