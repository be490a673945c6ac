"""One model on one identification benchmark: every figure that table, JSON and report show. Built by `protocols`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marginface.metrics.identification import TpirAtFpir
from marginface.metrics.intervals import Interval

BEST_PAIR_F1 = "best pair F1"


@dataclass(frozen=True)
class IdentificationResult:
    """Figures of one model in 1:N search.

    cmc: float64 (R,), share of the mated probes found within rank 1, 2, ... R. ranks: rank -> share, as reported.
    rates: name of the definition ("legacy", "open-set G1", "open-set mean" ...) -> identification at false alarms.
    intervals: figure ("rank 1", "legacy 0.01" ...) -> 95 % interval, people drawn, thresholds held.
    probes, gallery: how many templates or images were compared. figures: further named numbers (F1, ...).
    """

    model: str
    benchmark: str
    probes: int
    gallery: int
    people: int
    cmc: np.ndarray
    ranks: Mapping[int, float]
    rates: Mapping[str, Sequence[TpirAtFpir]]
    intervals: Mapping[str, Interval]
    figures: Mapping[str, float]
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "benchmark": self.benchmark,
            "model": self.model,
            "probes": self.probes,
            "gallery": self.gallery,
            "people": self.people,
            "ranks": {str(rank): share for rank, share in self.ranks.items()},
            "cmc": self.cmc.tolist(),
            "identification_rates": {name: [vars(rate) for rate in rates] for name, rates in self.rates.items()},
            "intervals": {name: [bound.low, bound.high] for name, bound in self.intervals.items()},
            "figures": dict(self.figures),
            "notes": list(self.notes),
        }
