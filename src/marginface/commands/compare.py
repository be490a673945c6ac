"""`marginface compare`: models side by side on the same axes, and whether their differences are more than luck."""

import dataclasses
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.progress import progress_bar
from marginface.commands.shared import add_allow_outside, add_overwrite, load_model, notice_alignment
from marginface.errors import InputError
from marginface.evaluate import Benchmark, open_benchmarks, publish
from marginface.evaluate.benchmark import Result
from marginface.evaluate.closed_set import ClosedSetBenchmark
from marginface.evaluate.embeddings import embed_images
from marginface.evaluate.pairs import PairsBenchmark
from marginface.evaluate.publish import check_published, split_results
from marginface.evaluate.saved import studied
from marginface.metrics.compare import Comparison, compare
from marginface.metrics.result import VerificationResult
from marginface.protocols.degrade import open_degrade
from marginface.report import best_f1_sheet, comparison_sheet, print_sheet, print_table
from marginface.terminal import open_console


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "results", type=str, nargs="+", help="runs, or files of `evaluate --json`; the first is compared"
    )
    parser.add_argument(
        "--benchmark",
        type=str,
        nargs="+",
        default=[],
        help="measure models on these instead: pairs with folds, or closedset:FOLDER",
    )
    parser.add_argument(
        "--degrade", type=str, nargs="*", default=[], help="with --benchmark: also on worse images, such as blur:3"
    )
    parser.add_argument("--json", type=str, default="", help="file to write figures and differences to")
    parser.add_argument("--report", type=str, default="compare.html", help="file to write the report to; '' = none")
    parser.add_argument("--resize", type=bool, default=False, help="scale images of another size to the model's")
    add_allow_outside(parser)
    add_overwrite(parser)


def run(options: Namespace, command: str) -> None:
    if len(options.results) < 2 or len(set(options.results)) < len(options.results):
        raise InputError("give at least two different runs to compare, such as runs/a runs/b")
    if options.degrade and not options.benchmark:
        raise InputError("--degrade measures models: give --benchmark with it")
    for spec in options.degrade:
        open_degrade(spec)
    check_published(options.json, options.report, options.overwrite, [*options.results, *options.benchmark])
    benchmarks = open_benchmarks(options.benchmark, options.resize, options.allow_outside)
    if benchmarks:
        results, comparisons = _measured(options.results, benchmarks, ["", *options.degrade])
    else:
        results, comparisons = _stored(options.results)
    publish(
        results,
        benchmarks,
        title=" vs ".join(options.results),
        command=command,
        json_file=options.json or None,
        report_file=options.report or None,
        comparisons=comparisons,
        overwrite=options.overwrite,
    )
    _print(results, comparisons, [one.name for one in benchmarks if isinstance(one, ClosedSetBenchmark)])


def _print(results: Sequence[Result], comparisons: Sequence[Comparison], closed_sets: Sequence[str]) -> None:
    pairs, searches = split_results(results)
    if pairs:
        names = {one.benchmark for one in pairs}
        print_table(pairs)
        print_sheet(comparison_sheet([one for one in comparisons if one.benchmark in names]), open_console())
    for name in closed_sets:
        own = [one for one in searches if one.benchmark == name or one.benchmark.startswith(f"{name}, ")]
        print_sheet(best_f1_sheet(own, comparisons), open_console())


def _measured(
    models: Sequence[str], benchmarks: Sequence[Benchmark], degrades: Sequence[str]
) -> tuple[list[Result], list[Comparison]]:
    """Each model on each benchmark as it is and degraded, all compared with the first.

    Raises InputError for benchmarks without folds, whose millions of pairs are not drawn again and again.
    """
    if unfit := [one.name for one in benchmarks if not isinstance(one, PairsBenchmark | ClosedSetBenchmark)]:
        raise InputError(
            f"{unfit[0]} is made neither of pairs with folds nor of a closed set; "
            "compare on lfw.bin, lfw:ROOT, pairs:FOLDER or closedset:FOLDER"
        )
    loaded = [load_model(model) for model in models]
    results: list[Result] = []
    comparisons = []
    for benchmark in benchmarks:
        for embedder in loaded:
            notice_alignment(benchmark.name, benchmark.images.alignment, embedder)
        for spec in degrades:
            name = f"{benchmark.name}, {spec}" if spec else benchmark.name
            images = dataclasses.replace(benchmark.images, degrade=open_degrade(spec) if spec else None)
            embedded = []
            for model, embedder in zip(models, loaded, strict=True):
                with progress_bar(f"{model} on {name}", "compare again") as progress:
                    embedded.append(embed_images(embedder, images, progress=progress))
            rows = [benchmark.score(one, model)[0] for one, model in zip(embedded, models, strict=True)]
            if isinstance(benchmark, ClosedSetBenchmark):
                fused = [one.fused for one in embedded]
                found = [
                    benchmark.people.compare((models[0], model), (fused[0], other))
                    for model, other in zip(models[1:], fused[1:], strict=True)
                ]
            else:
                found = _differences(split_results(rows)[0])
            results += [_renamed(row, name) for row in rows]
            comparisons += [dataclasses.replace(one, benchmark=name) for one in found]
    return results, comparisons


def _renamed(result: Result, benchmark: str) -> Result:
    if isinstance(result, VerificationResult):
        return dataclasses.replace(result, trials=dataclasses.replace(result.trials, benchmark=benchmark))
    return dataclasses.replace(result, benchmark=benchmark)


def _stored(names: Sequence[str]) -> tuple[list[Result], list[Comparison]]:
    """Results a benchmark that all runs share, runs in their order. Raises InputError when they share none."""
    found = [studied(one) for one in names]
    by_name = [{one.benchmark: one for one in results} for results in found]
    shared = [name for name in by_name[0] if all(name in own for own in by_name)]
    if not shared:
        held = "; ".join(f"{name}: {', '.join(own)}" for name, own in zip(names, by_name, strict=True))
        raise InputError(f"no benchmark was measured on all of them ({held}); give the same one with --benchmark")
    rows = [[own[name] for own in by_name] for name in shared]
    return [one for row in rows for one in row], [one for row in rows for one in _differences(row)]


def _differences(rows: Sequence[VerificationResult]) -> list[Comparison]:
    return [compare(rows[0], other) for other in rows[1:]]
