"""The other tables of a report: search, groups of people, models compared. For the terminal, page, Markdown, LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marginface.metrics.compare import BEST_F1, Comparison
from marginface.metrics.groups import GroupTable
from marginface.metrics.intervals import Interval
from marginface.metrics.result import VerificationResult
from marginface.metrics.search_result import BEST_PAIR_F1, IdentificationResult
from marginface.report.table import Cell, escape_bar, escape_latex, percent
from marginface.terminal import visible

LOG_WIDTH = 180


@dataclass(frozen=True)
class Sheet:
    """A table: its first heading names the rows, whose first cell is their name."""

    title: str
    caption: str
    headings: list[str]
    rows: list[list[Cell]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """GitHub Markdown; intervals stand in brackets."""
        lines = ["| " + " | ".join(self.headings) + " |", "|---|" + "--:|" * (len(self.headings) - 1)]
        for row in self.rows:
            cells = [f"{cell.text} ({cell.interval})" if cell.interval else cell.text for cell in row]
            lines.append("| " + " | ".join(map(escape_bar, cells)) + " |")
        return "\n".join(lines)

    def latex(self) -> str:
        """LaTeX (booktabs), figures without their intervals."""
        head = " & ".join(map(escape_latex, self.headings)) + r" \\"
        lines = [rf"\begin{{tabular}}{{l{'r' * (len(self.headings) - 1)}}}", r"\toprule", head, r"\midrule"]
        lines += [" & ".join(escape_latex(cell.text) for cell in row) + r" \\" for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def print_sheet(sheet: Sheet, console: Console | None = None) -> None:
    """Prints the table; intervals stand below their figures."""
    console = console or Console()
    if not console.is_terminal:  # a log file has no width to respect
        console = Console(file=console.file, width=max(console.width, LOG_WIDTH), no_color=console.no_color)
    table = Table(title=Text(visible(sheet.title), "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(sheet.headings):
        table.add_column(Text(visible(heading)), justify="right" if number else "left", overflow="fold")
    for row in sheet.rows:
        table.add_row(
            *(Text.assemble(visible(cell.text), (f"\n{cell.interval}" if cell.interval else "", "dim")) for cell in row)
        )
    console.print(table)
    for line in filter(None, [sheet.caption, *sheet.notes]):
        console.print(Text(visible(line), "dim"))


def search_sheet(results: Sequence[IdentificationResult]) -> Sheet:
    """Ranks, identification rates and named figures of one benchmark, one row a model."""
    ranks = list(dict.fromkeys(rank for one in results for rank in one.ranks))
    rates = list(dict.fromkeys((name, rate.fpir) for one in results for name, own in one.rates.items() for rate in own))
    if any(name == "open-set mean" for name, _ in rates):  # the single galleries stay in the JSON
        rates = [key for key in rates if key[0] in ("legacy", "open-set mean")]
    figures = list(dict.fromkeys(name for one in results for name in one.figures))
    rows = []
    for one in results:
        found = {(name, rate.fpir): rate for name, own in one.rates.items() for rate in own}
        cells = [Cell(one.model)]
        cells += [_share(one.ranks.get(rank), one.intervals.get(f"rank {rank}")) for rank in ranks]
        for key in rates:
            rate = found.get(key)
            mark = "*" if rate and rate.reason else ""
            cells.append(_share(rate.tpir if rate else None, one.intervals.get(f"{key[0]} {key[1]:g}"), mark))
        cells += [_figure(one, name) for name in figures]
        rows.append(cells)
    first = results[0]
    reasons = [f"* FPIR {rate.fpir:g} {rate.reason}" for one in results for own in one.rates.values() for rate in own
               if rate.reason]  # fmt: skip
    return Sheet(
        title=first.benchmark,
        caption=f"{first.probes:,} probes of {first.people:,} people, {first.gallery:,} in the gallery; "
        "shares in %; low–high: 95 % interval, people drawn, thresholds held.",
        headings=[
            "Model",
            *(f"Rank\u00a0{rank}" for rank in ranks),
            *(f"{name} TPIR @\u00a0{fpir:g}" for name, fpir in rates),
            *figures,
        ],
        rows=rows,
        notes=list(dict.fromkeys([*(note for one in results for note in one.notes), *reasons])),
    )


def print_searches(results: Sequence[IdentificationResult], console: Console) -> None:
    """Print one sheet per benchmark."""
    for name in dict.fromkeys(one.benchmark for one in results):
        print_sheet(search_sheet([one for one in results if one.benchmark == name]), console)


def best_f1_sheet(results: Sequence[IdentificationResult], comparisons: Sequence[Comparison]) -> Sheet:
    """The best pair F1 of models on one set and its degraded copies, and their differences: VN-Celeb's table."""
    sets = list(dict.fromkeys(one.benchmark for one in results))
    models = list(dict.fromkeys(one.model for one in results))
    found = {(one.model, one.benchmark): one for one in results}
    rows = []
    for model in models:
        figures = [found[model, name].figures for name in sets]
        shares = [_share(one[BEST_PAIR_F1], found[model, name].intervals.get(BEST_PAIR_F1))
                  for one, name in zip(figures, sets, strict=True)]  # fmt: skip
        thresholds = [Cell(f"{one[f'threshold of the {BEST_PAIR_F1}']:.3f}") for one in figures]
        rows.append([Cell(model), *(cell for both in zip(shares, thresholds, strict=True) for cell in both)])
    by_models = {(one.second, one.benchmark): one for one in comparisons}
    for model in models[1:]:
        differences = [_difference(by_models[model, name], BEST_F1) for name in sets]
        rows.append([Cell(f"{model} − {models[0]}"), *(cell for one in differences for cell in (one, Cell("")))])
    return Sheet(
        title=f"Best F1 of pairs on {sets[0]}",
        caption="In %, 95 % interval of the same drawn people below, the threshold found anew; † the difference's does "
        "not hold 0.",
        headings=["Model", *(text for name in sets for text in (_condition(name, sets[0]), "at cosine"))],
        rows=rows,
    )


def checkpoints_sheet(results: Sequence[VerificationResult]) -> Sheet | None:
    """Ten-fold accuracy of the models of one run, a row each, on every benchmark: ElasticFace's test.log as a table."""
    found = {(one.model, one.benchmark): one.fold_accuracy for one in results if one.fold_accuracy is not None}
    if not found:
        return None
    models, sets = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    rows = []
    for model in models:
        folds = [found.get((model, name)) for name in sets]
        rows.append(
            [Cell(model), *(Cell(f"{percent(one.mean)} ± {percent(one.std)}" if one else "–") for one in folds)]
        )
    caption = "Accuracy in %, mean and standard deviation over ten folds; all other figures are in the report and JSON."
    return Sheet("Models of the run", caption, ["Model", *sets], rows)


def folds_sheet(results: Sequence[VerificationResult]) -> Sheet | None:
    """Ten-fold figures as the trainers of others print them; None where no result has folds."""
    folded = [one for one in results if one.fold_accuracy is not None]
    if not folded:
        return None
    rows = []
    for one in folded:
        grid, exact, val = one.accuracy, one.exact, one.val
        cells = [
            Cell(f"{one.model} on {one.benchmark}"),
            Cell(f"{grid.mean:.5f}+-{grid.std:.5f}"),
            Cell(f"{one.xnorm:.6f}" if one.xnorm is not None else "–"),
            Cell(f"{val.val:.5f}+-{val.std:.5f} @ FAR={val.far:.5f}" if val else "–"),
            Cell(f"{exact.mean:.5f}+-{exact.std:.5f}" if exact else "–"),
            Cell(f"{exact.similarity:.4f}" if exact else "–"),
        ]
        rows.append(cells)
    return Sheet(
        title="Ten-fold figures as InsightFace prints them, and exact ones",
        caption="Accuracy-Flip and VAL on InsightFace's grids of squared distance; XNorm is the mean embedding length "
        "over both passes; exact: every threshold tried, its mean as a cosine.",
        headings=["Model", "Accuracy-Flip", "XNorm", "VAL @ 1e-3", "exact accuracy", "exact threshold"],
        rows=rows,
    )


def figures_sheet(results: Sequence[VerificationResult]) -> Sheet | None:
    """Named figures beyond those of every benchmark, such as OpenVINO's of LFW; None where there are none."""
    found = [one for one in results if one.figures]
    names = list(dict.fromkeys(name for one in found for name in one.figures))
    rows = [
        [
            Cell(f"{one.model} on {one.benchmark}"),
            *(Cell(f"{one.figures[name]:.4f}" if name in one.figures else "–") for name in names),
        ]
        for one in found
    ]
    caption = "Rates as shares of 1; OpenVINO's threshold is on 1 − cosine, MagFace's on the angle as a share of π."
    return Sheet("As the trainers of others report it", caption, ["Model", *names], rows) if found else None


def group_sheet(table: GroupTable) -> Sheet:
    """Error rates of each group, and the worst ratio between groups."""
    rows = [
        [
            Cell(group.group),
            Cell(f"{group.genuines:,}"),
            _share(group.fnmr, group.fnmr_interval),
            Cell(f"{group.impostors:,}"),
            _share(group.fmr, group.fmr_interval),
        ]
        for group in table.groups
    ]
    worst = [f"{name} {ratio:.2f}" for name, ratio in (("FNMR", table.worst_fnmr), ("FMR", table.worst_fmr)) if ratio]
    return Sheet(
        title=f"By {table.column}, at one threshold of {table.threshold:.3f}",
        caption="Highest rate over lowest: " + (", ".join(worst) if worst else "not defined (a rate is 0 or missing)"),
        headings=[table.column, "same pairs", "FNMR %", "different pairs", "FMR %"],
        rows=rows,
        notes=[f"{table.left_out:,} pairs across groups or of unknown group are left out"] if table.left_out else [],
    )


def comparison_sheet(comparisons: Sequence[Comparison]) -> Sheet:
    """Differences between pairs of models, with intervals and McNemar's test."""
    names = list(dict.fromkeys(name for one in comparisons for name in one.differences))
    rows = []
    for one in comparisons:
        cells = [Cell(f"{one.second} − {one.first} on {one.benchmark}")]
        for name in names:
            cells.append(_difference(one, name))
        p = f"{one.p_value:.3f}" if one.p_value >= 0.001 else f"{one.p_value:.0e}"
        rows.append([*cells, Cell(f"{one.only_second} : {one.only_first}"), Cell(p)])
    return Sheet(
        title="Models compared",
        caption="Differences in percentage points, 95 % interval of the same drawn people below; † it does not hold 0.",
        headings=["Difference", *(_shown(name) for name in names), "right alone", "McNemar p"],
        rows=rows,
    )


def _condition(name: str, plain: str) -> str:
    return name.removeprefix(f"{plain}, ") if name != plain else "as they are"


def _figure(result: IdentificationResult, name: str) -> Cell:
    if name not in result.figures:
        return Cell("–")
    bounds = result.intervals.get(name)
    return Cell(f"{result.figures[name]:.4f}", f"{bounds.low:.4f}–{bounds.high:.4f}" if bounds else "")


def _difference(comparison: Comparison, name: str) -> Cell:
    """In percentage points; a dagger where the interval does not hold 0."""
    if name not in comparison.differences:
        return Cell("–")
    difference, bounds = comparison.differences[name]
    mark = "" if bounds.low <= 0 <= bounds.high else " †"
    return Cell(f"{100 * difference:+.2f}{mark}", f"{100 * bounds.low:+.2f} to {100 * bounds.high:+.2f}")


def _share(value: float | None, interval: Interval | None, mark: str = "") -> Cell:
    if value is None:
        return Cell("–")
    return Cell(percent(value) + mark, f"{percent(interval.low)}–{percent(interval.high)}" if interval else "")


def _shown(name: str) -> str:
    return {"accuracy": "Accuracy", "auc": "AUC", "eer": "EER", BEST_F1: "Best F1"}.get(
        name, name.replace("tar ", "TAR @ ")
    )
