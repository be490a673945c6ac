"""`marginface evaluate`: a model and benchmarks to a table, JSON and a report."""

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.shared import load_model
from marginface.evaluate import UNDERSTOOD, baselines, measure, open_benchmark, publish
from marginface.report import print_table


def options(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="folder of a model, or of a run")
    parser.add_argument("--benchmark", type=str, nargs="+", required=True, help=UNDERSTOOD)
    parser.add_argument("--json", type=str, default="", help="file to write the results to")
    parser.add_argument("--report", type=str, default="report.html", help="file to write the report to; '' = none")
    parser.add_argument("--flip", type=bool, default=True, help="add the embedding of the mirror image")
    parser.add_argument("--resize", type=bool, default=False, help="scale images of another size to the model's")
    parser.add_argument("--baselines", type=bool, default=False, help="also pixels and the untrained network")


def run(options: Namespace, command: str) -> None:
    model = load_model(options.model)
    benchmarks = [open_benchmark(spec, options.resize) for spec in options.benchmark]
    results = []
    for benchmark in benchmarks:
        if options.baselines:
            results += baselines(benchmark, model)
        results.append(measure(benchmark, model, name=options.model, flip=options.flip))
    publish(
        results,
        benchmarks,
        title=f"{options.model} on {', '.join(benchmark.name for benchmark in benchmarks)}",
        command=command,
        json_file=options.json or None,
        report_file=options.report or None,
    )
    print_table(results)
