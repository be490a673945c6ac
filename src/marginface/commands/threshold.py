"""`marginface threshold`: which similarity to accept at, read off an evaluation and stored with the model."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.numbers import Rate
from marginface.evaluate.saved import choose_result, store_threshold
from marginface.metrics.advice import advise_threshold
from marginface.terminal import open_console, print_line


def options(parser: ArgumentParser) -> None:
    parser.add_argument("result", type=str, help="a run, or the file that `evaluate --json FILE` wrote")
    parser.add_argument(
        "--far", type=Rate, required=True, help="share of different people to be accepted, such as 1e-4"
    )
    parser.add_argument(
        "--benchmark", type=str, default="", help="which of the file's benchmarks, where it has several"
    )
    parser.add_argument("--model", type=str, default="", help="model to store it with; of a run, its own")


def run(options: Namespace, command: str) -> None:
    advice = advise_threshold(choose_result(options.result, options.benchmark), options.far)
    console = open_console()
    print_line(
        f"accept at a cosine similarity of {advice.threshold:.4f} or more\n"
        f"{advice.model} on {advice.benchmark}: FAR {advice.measured:.3g} in {advice.impostors:,} different pairs "
        f"(95 % interval up to {advice.highest_far:.3g}), TAR {advice.tar:.4f} in {advice.genuines:,} same pairs",
        console,
    )
    model = options.model or (options.result if (Path(options.result) / "model").is_dir() else "")
    if model:
        print_line(f"stored in {store_threshold(model, advice)}", console)
    else:
        print_line("not stored: give the model's folder with --model", console)
