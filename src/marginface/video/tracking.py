"""Faces followed from frame to frame, and names that do not flicker. Called by `annotate`.

Between two detections each face is followed by optical flow of the texture inside its box (Lucas-Kanade, 1981), moved
and scaled by the median. A track's vector is the running mean of the vectors seen, so one bad frame changes no name.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from marginface.gallery.people import UNKNOWN, Match

SAME, PATIENCE, MEMORY = 0.3, 3, 0.8  # overlap of one face; detections it may miss; what the past weighs


@dataclass
class Track:
    """One face over time. number: from 1, never used twice. box: float (4,). vector: mean so far. missed: in a row."""

    number: int
    box: np.ndarray
    vector: np.ndarray
    match: Match
    missed: int = 0
    votes: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name with the most votes of late."""
        return max(self.votes, key=lambda name: self.votes[name]) if self.votes else UNKNOWN

    def vote(self, match: Match) -> None:
        self.match = match
        self.votes = {name: MEMORY * votes for name, votes in self.votes.items()}
        self.votes[match.name] = self.votes.get(match.name, 0) + 1


@dataclass
class Tracker:
    """Give it either the detections of a frame (`detected`), or the frame alone (`moved`)."""

    tracks: list[Track] = field(default_factory=list)
    made: int = 0

    def detected(self, boxes: np.ndarray, vectors: np.ndarray) -> list[Track]:
        """boxes (n, 4), vectors (n, D) -> the track of each, old or new; those missed too often are dropped."""
        pairs = _pairs(np.array([track.box for track in self.tracks]).reshape(-1, 4), boxes)
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
        return [here[new] for new in range(len(boxes))]

    def moved(self, before: np.ndarray, now: np.ndarray) -> None:
        """Follows every box from one grey uint8 (H, W) frame to the next."""
        for track in self.tracks:
            track.box = _followed(before, now, track.box)

    @property
    def visible(self) -> list[Track]:
        return [track for track in self.tracks if not track.missed]


def _pairs(old: np.ndarray, new: np.ndarray) -> list[tuple[int, int]]:
    """Greedy by overlap, each box once: (index in old, index in new)."""
    if not len(old) or not len(new):
        return []
    low = np.maximum(old[:, None, :2], new[None, :, :2])
    high = np.minimum(old[:, None, 2:], new[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    area = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (old, new)]
    overlap = common / np.maximum(area[0][:, None] + area[1][None] - common, 1e-9)
    pairs = []
    while overlap.max() >= SAME:
        a, b = np.unravel_index(int(overlap.argmax()), overlap.shape)
        pairs.append((int(a), int(b)))
        overlap[a, :] = overlap[:, b] = -1
    return pairs


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
