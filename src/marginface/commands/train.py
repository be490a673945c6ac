"""`marginface train`: recipes and configuration files to a run."""

import difflib
import re
import shlex
from argparse import SUPPRESS

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from marginface.errors import InputError
from marginface.readers.remote import is_command
from marginface.terminal import print_line
from marginface.training.config import Config, recipe_or_file
from marginface.training.config_file import check_config_file, check_variables
from marginface.training.openvino_options import BASE, speaks_openvino, translated
from marginface.training.option_words import joined, replaced_options, without_stale_options
from marginface.training.run import open_run
from marginface.training.start import start_training

FIRST = (
    *("config", "resume", "name", "output", "init_from", "seed"),
    *("data.train", "data.val", "data.batch_size", "data.size", "data.workers"),
    *("model.backbone", "margin.name", "margin.options", "optim.lr", "train.epochs", "train.eval_every"),
    *("trainer.accelerator", "trainer.devices", "trainer.precision"),
)
"""The options in the short help."""


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action="config", help="a recipe's name or a YAML file; may be given several times")
    parser.add_argument(
        "--resume",
        type=str,
        default="",
        help="folder of an interrupted run to go on with, or auto: the one of this name, if any",
    )
    parser.add_class_arguments(Config)


def run(options: Namespace, command: str) -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(Config)
    fields = {name: value for name, value in options.as_dict().items() if name in Config.__dataclass_fields__}
    config = Config(**vars(parser.instantiate(parser.parse_object(fields))))
    _refuse_commands(config, shlex.split(command))
    named = re.search(r" --name\b", command) is not None
    try:
        start_training(config, resume=options.resume, numbered=not named, command=command, console=Console())
    except InputError as error:
        raise InputError(f"{error}{_not_typed(config, str(error), command)}") from error


def prepared(words: list[str]) -> list[str]:
    """Recipes by name become their files; a run to resume brings its configuration; no words at all are quickstart.

    Fine-tuning has a recipe of its own. Dashes in names are as good as underscores, and the options and @files of
    OpenVINO's trainer as good as ours.
    """
    if {"-h", "--help"} & set(words):  # not by the parser, which would open a --config before it
        print_help(everything="all" in words)
        raise SystemExit(0)
    words = [_underscored(word) for word in words]
    words = ["--data.allow_outside=true" if word == "--allow_outside" else word for word in words]
    foreign = speaks_openvino(words)
    words, sentences = translated(words)
    _tell(sentences)
    given = [word.partition("=")[0] for word in words]
    position = given.index("--resume") if "--resume" in given else len(words)
    folder = "".join(words[position : position + 1]).partition("=")[2] or "".join(words[position + 1 : position + 2])
    if folder and folder != "auto":
        words = ["--config", str(open_run(folder).config), *words]
    elif "--config" not in given:
        base = ["--config", "finetune" if "--init_from" in given else "quickstart"]
        words = [*(BASE if foreign else base), *words]
    option = ""
    for word in words:
        option, value = word.partition("=")[::2] if word.startswith("--") else (option, word)
        check_variables(option, option.removeprefix("--"), value)
    words, configs = joined(words), {}
    for position, word in enumerate(words):
        if word.startswith("--config="):
            file = recipe_or_file(word.partition("=")[2])
            words[position], configs[position] = f"--config={file}", check_config_file(file)
    _tell(list(replaced_options(words, configs)))
    words, sentences = without_stale_options(words, configs)
    _tell(sentences)
    return words


def _tell(sentences: list[str]) -> None:
    for sentence in sentences:
        print_line(sentence, Console(stderr=True))


def print_help(everything: bool) -> None:
    """Print the options that people use first, or all of them."""
    parser = ArgumentParser(
        prog="marginface train",
        usage="marginface train [--config RECIPE_OR_FILE ...] [--OPTION VALUE ...]",
        description="Learn an embedding from faces; without options, the recipe quickstart.",
    )
    options(parser)
    if not everything:
        parser.epilog = "marginface train --help all tells of every option."
        for action in parser._actions:
            if action.dest not in (*FIRST, "help"):
                action.help = SUPPRESS
        for group in parser._action_groups:
            if all(action.help == SUPPRESS for action in group._group_actions):
                group.description = None
    parser.print_help()


def _not_typed(config: Config, error: str, command: str) -> str:
    """Say which setting of a recipe the error is about, where nobody has typed the path that it names."""
    for name, specs in (("data.train", [config.data.train]), ("data.val", config.data.val)):
        for spec in specs:
            path = re.sub("^(pairs|lfw|closedset|tinyface|ijbb|ijbc):", "", spec).partition(",")[0]
            if path and path in error and path not in command:
                return f" ({name} of the recipe names it: give yours with --{name})"
    return ""


def _refuse_commands(config: Config, words: list[str]) -> None:
    """A configuration, which may be a stranger's run, must not run a command that nobody has typed."""
    for name, spec in (("data.train", config.data.train), ("old.train", config.old.train)):
        if is_command(spec) and not any(spec in word for word in words):
            raise InputError(
                f"{name} of the configuration is a command, {spec!r:.200}; a file must not run any: give it as --{name}"
            )


def _underscored(word: str) -> str:
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if name.startswith("--") else word


def explained(message: str) -> str:
    """The parser's complaint, with the keys that would have been valid."""
    if option := re.search(r'Parser key "([\w.]+\.options)":.*Union subtypes', message):
        return f"{option[1]}: give each option as a number, a word, true, false, null or a list of numbers"
    unknown = re.search(r"unrecognized arguments: --(\S+)|does not accept (?:nested key|option) '([^']+)'", message)
    if not unknown:
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
