"""Faces followed from frame to frame, and names that do not flicker. Called by `annotate`.

Between two detections each face is followed by optical flow of the texture inside its box (Lucas-Kanade, 1981), moved
and scaled by the median, as long as the box still looks as it did at the last detection. A detection continues a track
only where box and embedding agree; a cut ends all tracks. A track's vector is the running mean of the vectors seen.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from marginface.gallery.people import UNKNOWN, Match

SAME, PATIENCE, MEMORY = 0.3, 3, 0.8  # overlap of one face; detections it may miss; what the past weighs
LOOKS, PATCH = 0.6, 32  # correlation of a box with what was detected in it, at this side in pixels
SHOT, THUMBNAIL = 0.7, 32  # correlation of two frames of one shot, at this side in pixels
FLAT = 2.0  # grey levels of spread, below which a picture shows nothing to correlate


@dataclass
class Track:
    """One face over time.

    number: from 1, never used twice. box: float (4,). vector: mean so far. missed: detections in a row. looks: grey
    float (PATCH, PATCH) at the last detection, None before it is known. lost: whether the box looks otherwise by now.
    name: UNKNOWN unless the vector's similarity to that person is at or above the threshold now.
    """

    number: int
    box: np.ndarray
    vector: np.ndarray
    match: Match
    missed: int = 0
    votes: dict[str, float] = field(default_factory=dict)
    looks: np.ndarray | None = None
    lost: bool = False
    name: str = UNKNOWN

    def vote(self, match: Match, threshold: float) -> None:
        """Take what the gallery says of the vector: the name with the most votes of late, while it is accepted."""
        self.match = match
        self.votes = {name: MEMORY * votes for name, votes in self.votes.items()}
        self.votes[match.name] = self.votes.get(match.name, 0) + 1
        most = max(self.votes, key=lambda name: self.votes[name])
        self.name = most if dict(match.nearest).get(most, -np.inf) >= threshold else UNKNOWN


@dataclass
class Tracker:
    """Give it every frame (`moved`), and the faces of some (`detected`).

    alike: lowest cosine of a face to the track that it continues, such as the threshold for names.
    """

    alike: float = 0.5
    tracks: list[Track] = field(default_factory=list)
    made: int = 0

    def detected(self, boxes: np.ndarray, vectors: np.ndarray, frame: np.ndarray | None = None) -> list[Track]:
        """boxes (n, 4), vectors (n, D) of length 1 -> the track of each, old or new; those missed too often go.

        frame: grey uint8 (H, W), for what the boxes look like.
        """
        pairs = self._pairs(boxes, vectors)
        here: dict[int, Track] = {}
        for old, new in pairs:
            track = self.tracks[old]
            track.box, track.missed = boxes[new], 0
            mean = MEMORY * track.vector + (1 - MEMORY) * vectors[new]
            track.vector = mean / max(float(np.linalg.norm(mean)), 1e-12)
            here[new] = track
        for old, track in enumerate(self.tracks):
            track.missed += old not in {pair[0] for pair in pairs}
        for new in range(len(boxes)):
            if new not in here:
                self.made += 1
                here[new] = Track(self.made, boxes[new], vectors[new], Match(UNKNOWN, -1.0, []))
                self.tracks.append(here[new])
        self.tracks = [track for track in self.tracks if track.missed <= PATIENCE]
        for track in here.values():
            track.looks, track.lost = None if frame is None else _patch(frame, track.box), False
        return [here[new] for new in range(len(boxes))]

    def moved(self, before: np.ndarray, now: np.ndarray) -> bool:
        """Follow every box from one grey uint8 (H, W) frame to the next; whether faces must be detected anew.

        So it is after a cut, and where a box does not look as it did when its face was detected.
        """
        if is_cut(before, now):
            self.tracks = []
            return True
        for track in self.tracks:
            track.box = _followed(before, now, track.box)
            if track.looks is not None:
                track.lost = _correlation(track.looks, _patch(now, track.box)) < LOOKS
        return any(track.lost and not track.missed for track in self.tracks)

    @property
    def visible(self) -> list[Track]:
        return [track for track in self.tracks if not track.missed and not track.lost]

    def _pairs(self, boxes: np.ndarray, vectors: np.ndarray) -> list[tuple[int, int]]:
        """(index of a track, index of a face) that are one by overlap and likeness, most alike first, each once."""
        if not self.tracks or not len(boxes):
            return []
        likeness = np.array([track.vector for track in self.tracks]) @ vectors.T
        likeness[
            (_overlap(np.array([track.box for track in self.tracks]), boxes) < SAME) | (likeness < self.alike)
        ] = -np.inf
        pairs = []
        while likeness.max() > -np.inf:
            old, new = np.unravel_index(int(likeness.argmax()), likeness.shape)
            pairs.append((int(old), int(new)))
            likeness[old, :] = likeness[:, new] = -np.inf
        return pairs


def is_cut(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether a shot ends between two grey uint8 (H, W) frames."""
    small = [
        cv2.resize(frame, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(float) for frame in (before, now)
    ]
    return _correlation(small[0], small[1]) < SHOT


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures of one shape, -1 to 1: whatever their brightness and contrast; of flat ones 1, or 0 if one is."""
    spread = float(a.std()), float(b.std())
    if min(spread) < FLAT:
        return float(max(spread) < 2 * FLAT)
    return float(((a - a.mean()) * (b - b.mean())).mean() / (spread[0] * spread[1]))


def _patch(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Float (PATCH, PATCH): the box, which may lie partly outside of the frame, where the border is repeated."""
    left, top, right, bottom = box
    scale = np.maximum([right - left, bottom - top], 1) / PATCH
    matrix = np.array([[scale[0], 0, left + scale[0] / 2], [0, scale[1], top + scale[1] / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    blurred = cv2.warpAffine(frame, matrix, (PATCH, PATCH), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return cv2.GaussianBlur(blurred, (0, 0), 1.5).astype(float)


def _overlap(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (m, 4) and (n, 4): float (m, n)."""
    low = np.maximum(old[:, None, :2], new[None, :, :2])
    high = np.minimum(old[:, None, 2:], new[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    area = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (old, new)]
    overlap: np.ndarray = common / np.maximum(area[0][:, None] + area[1][None] - common, 1e-9)
    return overlap


def _followed(before: np.ndarray, now: np.ndarray, box: np.ndarray) -> np.ndarray:
    inside = np.zeros_like(before)
    left, top, right, bottom = np.rint(box).astype(int).clip(0)
    inside[top:bottom, left:right] = 255
    corners = cv2.goodFeaturesToTrack(before, 40, 0.01, 4, mask=inside)
    if corners is None:
        return box
    moved, good, _ = cv2.calcOpticalFlowPyrLK(before, now, corners, np.empty_like(corners))
    kept = np.asarray(good).ravel() == 1
    if kept.sum() < 4:
        return box
    a, b = np.asarray(corners).reshape(-1, 2)[kept], np.asarray(moved).reshape(-1, 2)[kept]
    shift = np.median(b - a, axis=0)
    spread = [np.median(np.linalg.norm(points - np.median(points, 0), axis=1)) for points in (a, b)]
    growth = np.clip(spread[1] / max(float(spread[0]), 1e-6), 0.9, 1.1)
    middle, half = (box[:2] + box[2:]) / 2 + shift, (box[2:] - box[:2]) / 2 * growth
    return np.concatenate([middle - half, middle + half])
