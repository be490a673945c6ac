"""Tails of the binomial distribution, for exact tests and bounds. Used by `advice` and `compare`."""

import numpy as np


def at_most(events: int, trials: int, rate: float) -> float:
    """P(X <= events) of `trials` draws with chance `rate`, summed in logarithms."""
    if rate >= 1:
        return float(events >= trials)
    k = np.arange(events)
    steps = np.log((trials - k) / (k + 1)) + np.log(rate) - np.log1p(-rate)
    terms = trials * np.log1p(-rate) + np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.exp(np.logaddexp.reduce(terms)))


def upper_bound(events: int, trials: int) -> float:
    """Upper end of Clopper and Pearson's 95 % interval: the rate that yields so few events 2.5 % of the time."""
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(events, trials, middle) > 0.025 else (low, middle)
    return high
