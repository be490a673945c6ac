"""The command `marginface`: the only place that parses words and prints. Bad input: one sentence, exit code 2."""

import difflib
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from marginface.align import align_faces, read_names
from marginface.backbones import list_backbones
from marginface.embedder import Embedder, default_device
from marginface.errors import InputError
from marginface.evaluate import UNDERSTOOD, baselines, embed_folder, measure, open_benchmark, publish
from marginface.margins import list_margins, margin_parameters
from marginface.readers import open_reader
from marginface.report import print_table
from marginface.training.config import Config, recipe_or_file, recipe_rows
from marginface.training.signals import Stopped
from marginface.training.start import start_training

Handler = Callable[[Namespace, str], None]


def main(words: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 2 bad input, 128 + signal when asked to stop."""
    words = list(sys.argv[1:] if words is None else words)
    parser, commands = _parsers()
    try:
        options = parser.parse_args(_prepared(words))
        commands[options.command](options[options.command], shlex.join(["marginface", *words]))
    except ArgumentError as error:
        _fail(_explained(str(error), words), 2)
    except InputError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror}; nothing was left half-written", 2)
    except Stopped as stopped:
        _fail(str(stopped), stopped.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def _fail(message: str, code: int) -> None:
    print(f"marginface: {message}", file=sys.stderr)
    sys.exit(code)


def _parsers() -> tuple[ArgumentParser, dict[str, Handler]]:
    parser = ArgumentParser(
        prog="marginface",
        description="Train, evaluate and ship face embeddings learned with margin-based softmax losses.",
        exit_on_error=False,
    )
    parser.add_argument("--version", action="version", version=version("marginface"))
    subcommands = parser.add_subcommands(dest="command", required=True)
    handlers: dict[str, Handler] = {}
    for name, (build, handler, text) in COMMANDS.items():
        subparser = ArgumentParser(description=f"{text[0].upper()}{text[1:]}.", exit_on_error=False)
        build(subparser)
        subcommands.add_subcommand(name, subparser, help=text)
        handlers[name] = handler
    return parser, handlers


def _prepared(words: list[str]) -> list[str]:
    """Recipes by name become their files; a run to resume brings its configuration; train alone is quickstart."""
    if words[:1] != ["train"] or {"-h", "--help"} & set(words):
        return words
    given = [word.partition("=")[0] for word in words]
    if "--resume" in given:
        position = given.index("--resume")
        folder = words[position].partition("=")[2] or "".join(words[position + 1 : position + 2])
        words = ["train", "--config", str(Path(folder) / "config.yaml"), *words[1:]]
    elif "--config" not in given:
        words = ["train", "--config", "quickstart", *words[1:]]
    prepared = []
    for position, word in enumerate(words):
        if position and words[position - 1] == "--config":
            word = recipe_or_file(word)
        elif word.startswith("--config="):
            word = "--config=" + recipe_or_file(word.partition("=")[2])
        prepared.append(word)
    return prepared


def _explained(message: str, words: list[str]) -> str:
    """The parser's complaint, with the keys that would have been valid."""
    message = " ".join(message.split())
    unknown = re.search(r"unrecognized arguments: --(\S+)|does not accept (?:nested key|option) '([^']+)'", message)
    if not unknown or words[:1] != ["train"]:
        return message
    key = (unknown.group(1) or unknown.group(2)).partition("=")[0]
    group = re.search(r"Group '([^']+)'", message)
    key = f"{group.group(1)}.{key}" if group else key
    parser = ArgumentParser()
    parser.add_class_arguments(Config)
    valid = [k for k in vars(parser.get_defaults().as_flat()) if not k.startswith("_")]
    near = [k for k in valid if k.startswith(key.rpartition(".")[0] + ".")] if "." in key else []
    close = difflib.get_close_matches(key, valid, 3)
    return (
        f"there is no --{key}; "
        + (f"did you mean --{' or --'.join(close)}? " if close else "")
        + ("valid are " + ", ".join(near or sorted({k.partition(".")[0] for k in valid})))
    )


def _train_options(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action="config", help="a recipe's name or a YAML file; may be given several times")
    parser.add_argument("--resume", type=str, default="", help="folder of an interrupted run to go on with")
    parser.add_class_arguments(Config)


def _train(options: Namespace, command: str) -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(Config)
    fields = {name: value for name, value in options.as_dict().items() if name in Config.__dataclass_fields__}
    config = Config(**vars(parser.instantiate(parser.parse_object(fields))))
    named = re.search(r" --name\b", command) is not None
    start_training(config, resume=options.resume, numbered=not named, command=command, console=Console())


def _evaluate_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="folder of a model, or of a run")
    parser.add_argument("--benchmark", type=str, nargs="+", required=True, help=UNDERSTOOD)
    parser.add_argument("--json", type=str, default="", help="file to write the results to")
    parser.add_argument("--report", type=str, default="report.html", help="file to write the report to; '' = none")
    parser.add_argument("--flip", type=bool, default=True, help="add the embedding of the mirror image")
    parser.add_argument("--resize", type=bool, default=False, help="scale images of another size to the model's")
    parser.add_argument("--baselines", type=bool, default=False, help="also pixels and the untrained network")


def _evaluate(options: Namespace, command: str) -> None:
    model = _load(options.model)
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


def _load(folder: str) -> Embedder:
    """A model's folder, or a run's, which holds one."""
    run = Path(folder) / "model"
    return Embedder.load(run if run.is_dir() else folder, default_device())


def _embed_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="folder of a model, or of a run")
    parser.add_argument("folder", type=str, help="aligned faces, in folders or not")
    parser.add_argument("-o", "--output", type=str, required=True, help="file to write: emb.npz")
    parser.add_argument("--flip", type=bool, default=True, help="add the embedding of the mirror image")
    parser.add_argument("--resize", type=bool, default=False, help="scale images of another size to the model's")


def _embed(options: Namespace, command: str) -> None:
    count = embed_folder(_load(options.model), options.folder, options.output, options.flip, options.resize)
    Console().print(f"{count} embeddings in {options.output}", highlight=False)


def _align_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=str, help="a list of photographs with five points each, such as lfw_landmark.txt"
    )
    parser.add_argument("folder", type=str, help="where the aligned faces go, a folder a person")
    parser.add_argument("--size", type=int, default=112, help="side of the square faces in pixels")
    parser.add_argument("--people", type=str, default="", help="only the people named in this file, one a line")


def _align(options: Namespace, command: str) -> None:
    people = read_names(options.people) if options.people else None
    with Progress(console=Console()) as bar:
        task = bar.add_task("aligning")
        done = align_faces(
            open_reader(options.source),
            options.folder,
            options.size,
            people,
            lambda count, total: bar.update(task, completed=count, total=total),
        )
    Console().print(f"{done.written} faces in {options.folder}, {done.kept} were there already", highlight=False)
    for key, reason in done.refused.items():
        Console(stderr=True).print(f"left out: {key}: {reason}", highlight=False)


def _recipes(options: Namespace, command: str) -> None:
    table = Table("recipe", "data | backbone | margin", "expect", title="marginface train --config RECIPE")
    for name, content in recipe_rows():
        table.add_row(name, content["summary"], content["expect"])
    Console().print(table)


def _margins(options: Namespace, command: str) -> None:
    table = Table("margin", "parameters", title="--margin.name NAME --margin.options.PARAMETER VALUE")
    for name in list_margins():
        table.add_row(name, ", ".join(margin_parameters(name)))
    Console().print(table)


def _backbones(options: Namespace, command: str) -> None:
    Console().print("\n".join(list_backbones()), highlight=False)


def _nothing(parser: ArgumentParser) -> None:
    """A command without options."""


COMMANDS: dict[str, tuple[Callable[[ArgumentParser], None], Handler, str]] = {
    "train": (
        _train_options,
        _train,
        "learn an embedding from faces; without options, the recipe quickstart",
    ),
    "evaluate": (_evaluate_options, _evaluate, "measure a model on people it never saw: table, JSON, HTML report"),
    "embed": (_embed_options, _embed, "turn a folder of aligned faces into embeddings"),
    "align": (_align_options, _align, "turn photographs with five points a face into aligned faces"),
    "recipes": (_nothing, _recipes, "list the recipes, each a run of a published system"),
    "backbones": (_nothing, _backbones, "list the networks"),
    "margins": (_nothing, _margins, "list the margins and their parameters"),
}
