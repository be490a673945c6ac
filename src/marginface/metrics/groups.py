"""FMR and FNMR of groups of people at one threshold, and how unequal they are. Called by `evaluate --by`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marginface.errors import InputError
from marginface.metrics.intervals import Interval, mean_interval


@dataclass(frozen=True)
class GroupRates:
    """One group. fnmr, fmr: None where the group has no such pair; intervals draw people."""

    group: str
    genuines: int
    impostors: int
    fnmr: float | None
    fmr: float | None
    fnmr_interval: Interval | None
    fmr_interval: Interval | None


@dataclass(frozen=True)
class GroupTable:
    """Groups by one column at one threshold. left_out: different pairs across two groups, and pairs of unknown group.

    worst_fnmr, worst_fmr: highest rate over lowest among the groups; None where a rate is missing or the lowest
    is 0.
    """

    column: str
    threshold: float
    groups: Sequence[GroupRates]
    left_out: int

    @property
    def worst_fnmr(self) -> float | None:
        return _ratio([group.fnmr for group in self.groups])

    @property
    def worst_fmr(self) -> float | None:
        return _ratio([group.fmr for group in self.groups])


def group_table(
    scores: np.ndarray,
    same: np.ndarray,
    sides: tuple[np.ndarray, np.ndarray],
    people: tuple[np.ndarray, np.ndarray] | None,
    threshold: float,
    *,
    column: str = "group",
    replicates: int = 1000,
) -> GroupTable:
    """Rates of the pairs whose two images share a group.

    scores: float (P,), accepted at >= threshold. same: bool (P,). sides: the group of each side as str (P,), empty
    where unknown. people: the person of each side, int (P,), for the intervals; None draws pairs.
    Raises InputError when no pair has a known group.
    """
    names = np.unique(np.concatenate(sides))
    names = names[names != ""]
    inside = (sides[0] == sides[1]) & (sides[0] != "")
    if not inside.any():
        raise InputError(f"no pair has two images of a known '{column}'; check the column and the image names")
    owner = np.arange(len(scores)) if people is None else people[0]
    rows = []
    for name in names:
        own = inside & (sides[0] == name)
        missed, alarmed = own & same, own & ~same
        fnmr = _rate(scores[missed] < threshold, owner[missed], replicates)
        fmr = _rate(scores[alarmed] >= threshold, owner[alarmed], replicates)
        rows.append(GroupRates(str(name), int(missed.sum()), int(alarmed.sum()), fnmr[0], fmr[0], fnmr[1], fmr[1]))
    return GroupTable(column, threshold, rows, int(np.count_nonzero(~inside)))


def _rate(errors: np.ndarray, owner: np.ndarray, replicates: int) -> tuple[float | None, Interval | None]:
    if not len(errors):
        return None, None
    return float(np.mean(errors)), mean_interval(errors, owner, replicates) if replicates else None


def _ratio(rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    if len(known) != len(rates) or len(known) < 2 or min(known) == 0:
        return None
    return max(known) / min(known)
