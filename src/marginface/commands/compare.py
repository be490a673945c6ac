"""`marginface compare`: models side by side on the same axes, and whether their differences are more than luck."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from marginface.commands.shared import add_allow_outside, add_overwrite, load_model
from marginface.errors import InputError
from marginface.evaluate import Benchmark, measure, open_benchmarks, publish
from marginface.evaluate.pairs import PairsBenchmark
from marginface.evaluate.publish import check_published
from marginface.evaluate.saved import studied
from marginface.metrics.compare import Comparison, compare
from marginface.metrics.result import VerificationResult
from marginface.report import comparison_sheet, print_sheet, print_table


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "results", type=str, nargs="+", help="runs, or files of `evaluate --json`; the first is compared"
    )
    parser.add_argument("--benchmark", type=str, nargs="+", default=[], help="measure models on these pairs instead")
    parser.add_argument("--json", type=str, default="", help="file to write figures and differences to")
    parser.add_argument("--report", type=str, default="compare.html", help="file to write the report to; '' = none")
    parser.add_argument("--resize", type=bool, default=False, help="scale images of another size to the model's")
    add_allow_outside(parser)
    add_overwrite(parser)


def run(options: Namespace, command: str) -> None:
    if len(options.results) < 2 or len(set(options.results)) < len(options.results):
        raise InputError("give at least two different runs to compare, such as runs/a runs/b")
    check_published(options.json, options.report, options.overwrite, [*options.results, *options.benchmark])
    benchmarks = open_benchmarks(options.benchmark, options.resize, options.allow_outside)
    found = _measured(options.results, benchmarks) if benchmarks else [studied(one) for one in options.results]
    results = _shared(found, options.results)
    comparisons = [comparison for rows in results for comparison in _differences(rows)]
    flat = [one for rows in results for one in rows]
    publish(
        flat,
        benchmarks,
        title=" vs ".join(options.results),
        command=command,
        json_file=options.json or None,
        report_file=options.report or None,
        comparisons=comparisons,
        overwrite=options.overwrite,
    )
    print_table(flat)
    print_sheet(comparison_sheet(comparisons), Console())


def _measured(models: Sequence[str], benchmarks: Sequence[Benchmark]) -> list[list[VerificationResult]]:
    """Raises InputError for benchmarks without folds, whose millions of pairs are not drawn again and again."""
    if unfit := [one.name for one in benchmarks if not isinstance(one, PairsBenchmark)]:
        raise InputError(f"{unfit[0]} is not made of pairs with folds; compare on lfw.bin, lfw:ROOT or pairs:FOLDER")
    return [[measure(one, load_model(model), name=model) for one in benchmarks] for model in models]


def _shared(found: Sequence[Sequence[VerificationResult]], names: Sequence[str]) -> list[list[VerificationResult]]:
    """Results a benchmark that all models share, models in their order. Raises InputError when they share none."""
    by_name = [{one.benchmark: one for one in results} for results in found]
    shared = [name for name in by_name[0] if all(name in own for own in by_name)]
    if not shared:
        held = "; ".join(f"{name}: {', '.join(own)}" for name, own in zip(names, by_name, strict=True))
        raise InputError(f"no benchmark was measured on all of them ({held}); give the same one with --benchmark")
    return [[own[name] for own in by_name] for name in shared]


def _differences(rows: Sequence[VerificationResult]) -> list[Comparison]:
    return [compare(rows[0], other) for other in rows[1:]]
