"""The command `marginface`: finds the verb, parses its words, runs it. Bad input: one sentence, exit code 2."""

import importlib
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType, ModuleType

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from marginface.commands import COMMANDS
from marginface.errors import InputError, Stopped
from marginface.training.signals import ECHO

set_parsing_settings(import_path_denylist=["*"])  # a configuration's values name no modules to import


def main(words: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 2 bad input, 128 + signal when asked to stop."""
    words = list(sys.argv[1:] if words is None else words)
    verb = words[0] if words else ""
    module = importlib.import_module(f"marginface.commands.{verb}") if verb in COMMANDS else None
    try:
        with _orderly_exit():
            if module is not None and hasattr(module, "prepared"):
                parsed = [verb, *module.prepared(words[1:])]
            else:
                parsed = words
            options = _parser(verb, module).parse_args(parsed)
            if module is not None:
                module.run(options[verb], shlex.join(["marginface", *words]))
    except ArgumentError as error:
        message = " ".join(str(error).split())
        _fail(module.explained(message) if module is not None and hasattr(module, "explained") else message, 2)
    except InputError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror}; nothing was left half-written", 2)
    except Stopped as stopped:
        _fail(str(stopped), stopped.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


@contextmanager
def _orderly_exit() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP end the command as Ctrl-C does, so that temporary files are removed.

    A second one that comes ECHO or more later ends the process at once. What was ignored, as by nohup, stays ignored.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    since = 0.0

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if not since:
            since = time.monotonic()
            sys.exit(128 + number)
        if time.monotonic() - since > ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        numbers = []
    for number in numbers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _fail(message: str, code: int) -> None:
    shown = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "?", message)  # names in files may hold a terminal's commands
    print(f"marginface: {shown}", file=sys.stderr)
    sys.exit(code)


def _parser(verb: str, module: ModuleType | None) -> ArgumentParser:
    """Knows the names of all verbs, and the words of the one that is called."""
    parser = ArgumentParser(
        prog="marginface",
        description="Train, evaluate and ship face embeddings learned with margin-based softmax losses.",
        exit_on_error=False,
        allow_abbrev=False,  # of all verbs: a shortened --config would not be checked
    )
    parser.add_argument("--version", action="version", version=version("marginface"))
    subcommands = parser.add_subcommands(dest="command", required=True)
    for name, text in COMMANDS.items():
        subparser = ArgumentParser(description=f"{text[0].upper()}{text[1:]}.", exit_on_error=False)
        if module is not None and name == verb:
            module.options(subparser)
        subcommands.add_subcommand(name, subparser, help=text)
    return parser
