"""The summary table of verification results: for the terminal, the page, Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marginface.metrics.intervals import Interval
from marginface.metrics.result import VerificationResult
from marginface.terminal import visible

FULL_WIDTH = 116
"""Columns a terminal needs for a table with its intervals."""


@dataclass(frozen=True)
class Cell:
    """One figure as text: the value, its 95 % interval, and why it is missing."""

    text: str
    interval: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One model on one benchmark."""

    benchmark: str
    model: str
    pairs: str
    cells: list[Cell]
    notes: Sequence[str]


def headings(results: Sequence[VerificationResult]) -> list[str]:
    """Names of the figures, in the order of `Row.cells`."""
    return ["Accuracy %", "Threshold", "AUC", "EER %", *(f"TAR % @ FAR {far:g}" for far in _fars(results))]


def rows(results: Sequence[VerificationResult]) -> list[Row]:
    """The table's rows in the order of `results`; FARs that any of them reports become columns of all."""
    fars = _fars(results)
    return [
        Row(
            result.benchmark,
            result.model,
            f"{result.roc.genuines:,} same, {result.roc.impostors:,} different",
            [*_headline(result), *(_tar(result, far) for far in fars)],
            result.trials.notes,
        )
        for result in results
    ]


def interval_caption(results: Sequence[VerificationResult]) -> str:
    """What the intervals are, for the table's caption; empty where there are none."""
    kinds = {result.intervals.by for result in results if result.intervals is not None}
    if not kinds:
        return ""
    drawn = " and ".join({"subject": "people", "pair": "pairs (people unknown)"}[kind] for kind in sorted(kinds))
    return f"low–high: 95 % confidence interval, bootstrap over {drawn}."


def print_table(results: Sequence[VerificationResult], console: Console | None = None) -> None:
    """Prints one table a benchmark; intervals stand below their figures where the terminal is wide enough."""
    console = console or Console()
    if not console.is_terminal:  # a log file has no width to respect
        console = Console(file=console.file, width=max(console.width, FULL_WIDTH))
    full = console.width >= FULL_WIDTH
    for benchmark in dict.fromkeys(result.benchmark for result in results):
        console.print(_terminal_table([one for one in results if one.benchmark == benchmark], full))
    caption = interval_caption(results)
    console.print(Text(caption if full or not caption else "95 % intervals: in the JSON and the report.", "dim"))
    for note in footnotes(results):
        console.print(Text(visible(note), "dim"))


def _terminal_table(results: Sequence[VerificationResult], full: bool) -> Table:
    found = rows(results)
    shown = [i for i in range(len(found[0].cells)) if not all(row.cells[i].reason for row in found)]
    names = headings(results)
    title = Text.assemble((visible(found[0].benchmark), "bold"), (f"  {found[0].pairs}", "dim"))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("Model", overflow="fold", min_width=12)
    for i in shown:
        table.add_column(names[i].replace("TAR % @ FAR", "TAR % @"), justify="right", no_wrap=True)
    for row in found:
        cells = [Text.assemble(cell.text, (f"\n{cell.interval}" if full else "", "dim")) for cell in row.cells]
        table.add_row(Text(visible(row.model)), *(cells[i] for i in shown))
    return table


def markdown_table(results: Sequence[VerificationResult]) -> str:
    """The table in GitHub Markdown."""
    names = ["Benchmark", "Model", *headings(results)]
    lines = ["| " + " | ".join(names) + " |", "|---|---|" + "--:|" * (len(names) - 2)]
    for row in rows(results):
        cells = [f"{cell.text} ({cell.interval})" if cell.interval else cell.text for cell in row.cells]
        lines.append("| " + " | ".join([escape_bar(row.benchmark), escape_bar(row.model), *cells]) + " |")
    return "\n".join(lines)


def latex_table(results: Sequence[VerificationResult]) -> str:
    """The table in LaTeX (booktabs), figures without their intervals."""
    names = [escape_latex(name) for name in ["Benchmark", "Model", *headings(results)]]
    lines = [
        rf"\begin{{tabular}}{{ll{'r' * (len(names) - 2)}}}",
        r"\toprule",
        " & ".join(names) + r" \\",
        r"\midrule",
    ]
    for row in rows(results):
        cells = [escape_latex(cell.text) for cell in row.cells]
        lines.append(" & ".join([escape_latex(row.benchmark), escape_latex(row.model), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _fars(results: Sequence[VerificationResult]) -> list[float]:
    return sorted({tar.far for result in results for tar in result.tars}, reverse=True)


def _headline(result: VerificationResult) -> list[Cell]:
    bounds = result.intervals
    folds = result.fold_accuracy
    area = bounds.auc if bounds else None
    return [
        Cell(f"{percent(folds.mean)} ± {percent(folds.std)}", _percents(bounds.accuracy if bounds else None))
        if folds
        else Cell("–", reason="this benchmark has no folds"),
        Cell(f"{result.threshold:.3f}"),
        Cell(f"{result.auc:.4f}", f"{area.low:.3f}–{area.high:.3f}" if area else ""),
        Cell(percent(result.eer), _percents(bounds.eer if bounds else None)),
    ]


def _tar(result: VerificationResult, far: float) -> Cell:
    found = next((tar for tar in result.tars if tar.far == far), None)
    if found is None:
        return Cell("–", reason="not asked for")
    if found.tar is None:
        return Cell("–", reason=found.reason or "")
    bounds = result.intervals.tar.get(far) if result.intervals else None
    return Cell(percent(found.tar) + "*" * bool(found.reason), _percents(bounds))


def _percents(interval: Interval | None) -> str:
    return "" if interval is None else f"{percent(interval.low)}–{percent(interval.high)}"


def footnotes(results: Sequence[VerificationResult]) -> list[str]:
    """Notes of the benchmarks and reasons for missing figures, each once."""
    found = [f"{result.benchmark}: {note}" for result in results for note in result.trials.notes]
    for result in results:
        found += [f"{result.benchmark}: FAR {tar.far:g} {tar.reason}" for tar in result.tars if tar.reason]
    return list(dict.fromkeys(found))


def escape_bar(text: str) -> str:
    """For a cell of a Markdown table."""
    return text.replace("|", r"\|")


def escape_latex(text: str) -> str:
    """For a cell of a LaTeX table."""
    for character in "%_&#$":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("−", "$-$").replace("†", r"$\dagger$")
