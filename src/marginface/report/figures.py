"""Charts of results: ROC, DET and score histogram of each benchmark, and the training curves. Used by `page`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marginface.metrics.reject import RejectCurve
from marginface.metrics.result import VerificationResult
from marginface.metrics.roc import corner_points
from marginface.metrics.search_result import IdentificationResult
from marginface.report.charts import Axis, Chart, Series, line_chart, nice_range

STYLES = ("s1", "s2", "s3", "s4", "s5", "s6")
"""Colours of models, the benchmark's last model first; later ones share the grey "s0"."""
CUTS = 401
"""Positions of the threshold slider."""
MOST_BINS = 80


def styles(count: int) -> list[str]:
    """CSS class of each of `count` models; the last, the one under study, gets the first colour."""
    return [STYLES[count - 1 - i] if count - 1 - i < len(STYLES) else "s0" for i in range(count)]


def roc_chart(name: str, results: Sequence[VerificationResult]) -> Chart:
    """TAR over FAR, FAR logarithmic down to one false accept."""
    low = _decade(1 / max(result.roc.impostors for result in results))
    series = [
        _curve(result, style, low, miss=False) for result, style in zip(results, styles(len(results)), strict=True)
    ]
    floor = min(float(one.y.min()) for one in series)
    y = Axis("True accept rate (1 − FNMR)", max(0.0, nice_range(np.array([floor, 1.0]))[0]), 1.0, unit="percent")
    return line_chart(name, "ROC", series, Axis("False accept rate (FMR)", low, 1.0, log=True, unit="rate"), y)


def det_chart(name: str, results: Sequence[VerificationResult]) -> Chart:
    """FNMR over FMR, both logarithmic."""
    low = _decade(1 / max(result.roc.impostors for result in results))
    floor = _decade(1 / max(result.roc.genuines for result in results))
    series = [
        _curve(result, style, low, miss=True) for result, style in zip(results, styles(len(results)), strict=True)
    ]
    return line_chart(
        name,
        "DET",
        series,
        Axis("False match rate (FMR)", low, 1.0, log=True, unit="rate"),
        Axis("False non-match rate (FNMR)", floor, 1.0, log=True, unit="rate"),
    )


def histogram_chart(name: str, result: VerificationResult) -> Chart:
    """Share of same and of different pairs in each bin of similarity, as outlines."""
    low, high = nice_range(result.scores)
    bins = int(np.clip(len(result.scores) // 25, 20, MOST_BINS))
    edges = np.linspace(low, high, bins + 1)
    series = []
    for label, kind, style in (("different people", False, "different"), ("same person", True, "same")):
        counts, _ = np.histogram(result.scores[result.trials.same == kind], edges)
        share = counts / max(1, counts.sum())
        series.append(Series(label, np.repeat(edges, 2)[1:-1], np.repeat(share, 2), style, filled=True))
    top = nice_range(np.array([0, max(float(one.y.max()) for one in series)]))[1]
    y = Axis("Share of its pairs", 0.0, top, unit="percent")
    return line_chart(name, f"Scores of {result.model}", series, Axis("Cosine similarity", low, high), y)


def threshold_table(result: VerificationResult) -> dict[str, Any]:
    """Accepted same and different pairs at `CUTS` thresholds over the histogram's axis, for the slider."""
    low, high = nice_range(result.scores)
    cuts = np.linspace(low, high, CUTS)
    sides = [np.sort(result.scores[result.trials.same == kind]) for kind in (True, False)]
    true_accepts, false_accepts = (len(side) - np.searchsorted(side, cuts, side="left") for side in sides)
    return {
        "model": result.model,
        "low": low,
        "high": high,
        "start": int(np.argmin(np.abs(cuts - result.threshold))),
        "genuines": result.roc.genuines,
        "impostors": result.roc.impostors,
        "trueAccepts": true_accepts.tolist(),
        "falseAccepts": false_accepts.tolist(),
    }


def cmc_chart(name: str, results: Sequence[IdentificationResult]) -> Chart:
    """Share of the probes found within each rank, ranks logarithmic."""
    series = [
        Series(one.model, np.arange(1, len(one.cmc) + 1, dtype=np.float64), one.cmc, style)
        for one, style in zip(results, styles(len(results)), strict=True)
    ]
    deepest = max(2.0, max(float(one.x[-1]) for one in series))
    low = nice_range(np.array([min(float(one.y.min()) for one in series), 1.0]))[0]
    x = Axis("Rank", 1.0, deepest, log=True, marks=(1, 2, 5, 10, 20, 50))
    return line_chart(name, "CMC", series, x, Axis("Probes found within it", max(0.0, low), 1.0, unit="percent"))


def reject_chart(name: str, curves: Sequence[RejectCurve]) -> Chart:
    """FNMR over the share of pairs left out, least quality first."""
    series = []
    for curve, style in zip(curves, styles(len(curves)), strict=True):
        known = np.isfinite(curve.fnmr)
        behind = zip(curve.genuines[known], curve.impostors[known], strict=True)
        notes = [f"{own:,} same, {other:,} different pairs" for own, other in behind]
        series.append(Series(curve.quality, curve.rejected[known], curve.fnmr[known], style, notes=notes))
    top = nice_range(np.array([0.0, max(float(one.y.max()) for one in series)]))[1]
    y = Axis(f"FNMR at FMR {curves[0].fmr:g}", 0.0, top, unit="percent")
    return line_chart(name, "Error versus reject", series, Axis("Pairs left out", 0.0, 1.0, unit="percent"), y)


def training_charts(history: Sequence[Mapping[str, str | float | None]]) -> list[Chart]:
    """One small chart for each numeric column of the training log but `step` and `epoch`, over `step`.

    Values may be numbers or their text; empty, missing and non-finite ones are left out.
    """
    columns = dict.fromkeys(key for row in history for key in row if key not in ("step", "epoch"))
    found = []
    for number, column in enumerate(columns):
        points = np.array([[_number(row.get("step")), _number(row.get(column))] for row in history])
        points = _thin(points[np.all(np.isfinite(points), axis=1)])
        if len(points) < 2:
            continue
        x, y = points.T
        axes = Axis("Step", 0.0, float(x.max())), Axis("", *nice_range(y))
        series = [Series(column, x, y, "s1")]
        found.append(line_chart(f"training-{number}", _title(column), series, *axes))
    return found


TITLES = {
    "loss": "Training loss",
    "lr": "Learning rate",
    "images_per_second": "Images per second",
    "target_cosine": "Cosine to own class",
    "target_logit": "Logit of own class",
    "norm": "Embedding length",
    "data_wait": "Waiting for data",
    "memory": "Memory, GiB",
    "gradient_norm": "Gradient length",
    "easy": "Right with the margin",
    "hard": "Wrong without the margin",
}


def _curve(result: VerificationResult, style: str, low: float, miss: bool) -> Series:
    roc = result.roc
    kept = corner_points(roc)
    visible = kept[roc.far[kept] >= low]
    # enter from the left edge at the TAR of the points that lie beyond it
    before = kept[roc.far[kept] < low][-1:]
    kept = np.concatenate([before, visible])
    tar = roc.tar[kept]
    notes = [f"threshold {value:.3f}" if np.isfinite(value) else "" for value in roc.thresholds[kept]]
    return Series(result.model, np.maximum(roc.far[kept], low), 1 - tar if miss else tar, style, notes=notes)


def _decade(value: float) -> float:
    return float(10.0 ** math.floor(math.log10(value) + 1e-9))


def _title(column: str) -> str:
    return TITLES.get(column, column.replace("_", " "))


def _number(value: str | float | None) -> float:
    """NaN for what is no number."""
    try:
        return float(value or "nan") if not isinstance(value, int | float) else float(value)
    except ValueError:
        return math.nan


def _thin(points: np.ndarray, limit: int = 500) -> np.ndarray:
    """At most `limit` rows, evenly chosen, the last kept."""
    chosen = np.unique(np.linspace(0, len(points) - 1, min(limit, len(points))).round().astype(int))
    thinned: np.ndarray = points[chosen]
    return thinned
