"""Writes report.html: everything about some results in one file that needs no network. Called by `evaluate`, `cli`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from marginface.errors import InputError
from marginface.filenames import as_text
from marginface.files import create_file
from marginface.metrics.compare import Comparison
from marginface.metrics.groups import GroupTable
from marginface.metrics.reject import RejectCurve
from marginface.metrics.result import VerificationResult
from marginface.metrics.search_result import IdentificationResult
from marginface.report import figures, table
from marginface.report import sheets as sheets_of
from marginface.report.pictures import PictureOf, jpeg_uri, worst_pairs


@dataclass(frozen=True)
class Provenance:
    """What it takes to repeat the figures: the exact command, the date as text, name -> value of the others."""

    command: str = ""
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)


def write_report(
    path: str | Path,
    results: Sequence[VerificationResult],
    title: str,
    *,
    training: Sequence[Mapping[str, str | float | None]] | None = None,
    provenance: Provenance | None = None,
    pictures: Mapping[str, PictureOf] | None = None,
    samples: np.ndarray | None = None,
    searches: Sequence[IdentificationResult] = (),
    groups: Sequence[GroupTable] = (),
    rejects: Sequence[RejectCurve] = (),
    comparisons: Sequence[Comparison] = (),
    overwrite: bool = False,
) -> None:
    """Write the page to `path`.

    results: one row each, grouped by benchmark in order of appearance; the last model of each benchmark is
    the one under study: first colour, headline tiles, pictures.
    training: rows of the training log (`step` and any numeric columns), one chart a column.
    pictures: benchmark name -> function from image index to RGB uint8 (H, W, 3), for the worst pairs.
    samples: RGB uint8 (H, W, 3) grid of training images as the network sees them.
    searches: results of 1:N benchmarks, grouped and coloured like `results`.
    groups, rejects, comparisons: tables by group, error-versus-reject curves, models compared.
    Raises InputError without results, and for a file that exists, unless it is an earlier page or `overwrite` is set.
    """
    if not results and not searches:
        raise InputError("a report needs at least one result")
    benchmarks = [
        _benchmark(f"b{number}", name, [one for one in results if one.benchmark == name], pictures or {})
        for number, name in enumerate(dict.fromkeys(result.benchmark for result in results))
    ]
    curves = figures.training_charts(training) if training else []
    found = [_search(f"s{i}", own) for i, own in enumerate(_grouped(searches))]
    sheets = [sheet for sheet in (sheets_of.folds_sheet(results), sheets_of.figures_sheet(results)) if sheet]
    sheets += [sheets_of.group_sheet(group) for group in groups]
    sheets += [sheets_of.comparison_sheet(comparisons)] if comparisons else []
    quality = figures.reject_chart("reject", rejects) if rejects else None
    charts = [chart for one in benchmarks for chart in one["charts"]] + curves + [one["cmc"] for one in found]
    charts += [quality] if quality else []
    data = {
        "charts": {chart.name: chart.data() for chart in charts},
        "thresholds": {f"{one['name']}-{i}": cut for one in benchmarks for i, cut in enumerate(one["thresholds"])},
    }
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            benchmarks=benchmarks,
            headings=table.headings(results),
            rows=_marked(results),
            caption=table.interval_caption(results),
            footnotes=table.footnotes(results),
            markdown=table.markdown_table(results),
            latex=table.latex_table(results),
            json=json.dumps([one.to_json() for one in results] + [one.to_json() for one in searches], indent=1),
            searches=found,
            sheets=sheets,
            reject=quality,
            training=curves,
            samples=jpeg_uri(samples, longest=1400, quality=85) if samples is not None else "",
            provenance=provenance or Provenance(),
            data=data,
        )
    )
    with create_file(path, overwrite) as temporary:
        temporary.write_text(as_text(page), encoding="utf-8")


def _benchmark(
    name: str, title: str, results: list[VerificationResult], pictures: Mapping[str, PictureOf]
) -> dict[str, Any]:
    """Everything the template shows of one benchmark; `name` prefixes its element ids."""
    subject = results[-1]
    histograms = [figures.histogram_chart(f"{name}-scores-{i}", one) for i, one in enumerate(results)]
    roc, det = figures.roc_chart(f"{name}-roc", results), figures.det_chart(f"{name}-det", results)
    picture_of = pictures.get(title)
    return {
        "name": name,
        "title": title,
        "subject": subject,
        "tiles": _tiles(subject),
        "roc": roc,
        "det": det,
        "histograms": histograms,
        "charts": [roc, det, *histograms],
        "thresholds": [figures.threshold_table(one) for one in results],
        "models": [one.model for one in results],
        "false_accepts": worst_pairs(subject, picture_of, same=False) if picture_of else None,
        "false_rejects": worst_pairs(subject, picture_of, same=True) if picture_of else None,
    }


def _grouped(searches: Sequence[IdentificationResult]) -> list[list[IdentificationResult]]:
    names = dict.fromkeys(one.benchmark for one in searches)
    return [[one for one in searches if one.benchmark == name] for name in names]


def _search(name: str, results: list[IdentificationResult]) -> dict[str, Any]:
    return {"sheet": sheets_of.search_sheet(results), "cmc": figures.cmc_chart(f"{name}-cmc", results)}


def _tiles(result: VerificationResult) -> list[dict[str, str]]:
    """The headline figures of the model under study."""
    row = table.rows([result])[0]
    named = list(zip(table.headings([result]), row.cells, strict=True))
    shown = [pair for pair in named if pair[0] != "Threshold" and not pair[1].reason]
    return [{"label": name, "value": cell.text, "interval": cell.interval} for name, cell in shown[:5]]


def _marked(results: Sequence[VerificationResult]) -> list[dict[str, Any]]:
    """The table's rows with their colour, and whether a benchmark begins with them."""
    found = []
    for number, row in enumerate(table.rows(results)):
        peers = [one.model for one in results if one.benchmark == row.benchmark]
        style = figures.styles(len(peers))[peers.index(row.model)]
        first = number == 0 or results[number - 1].benchmark != row.benchmark
        found.append({"row": row, "style": style, "first": first, "subject": row.model == peers[-1]})
    return found


def _environment() -> jinja2.Environment:
    folder = resources.files("marginface.report") / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    # css and js are included as they are; only values put into the html are escaped
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
