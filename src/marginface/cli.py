"""The command `marginface`: finds the verb, parses its words, runs it. Bad input: one sentence, exit code 2."""

import importlib
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType, ModuleType
from typing import TextIO

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from marginface.commands import COMMANDS
from marginface.errors import InputError, Stopped
from marginface.filenames import as_text
from marginface.terminal import CONTROLS, make_printable
from marginface.training.signals import ECHO

set_parsing_settings(import_path_denylist=["*"])  # a configuration's values name no modules to import
TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def main(words: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 2 bad input, 128 + signal when asked to stop.

    words: None for those of the process; only then are its streams ours, to set and to redirect.
    """
    of_process = words is None
    words = list(sys.argv[1:] if words is None else words)
    verb = words[0] if words else ""
    module: ModuleType | None = None
    if of_process:
        make_printable(sys.stdout, sys.stderr)
    try:
        if verb in COMMANDS:
            with _outside_current_folder() if of_process else nullcontext():
                module = importlib.import_module(f"marginface.commands.{verb}")
        with _orderly_exit(), _flushed():
            if module is not None and hasattr(module, "prepared"):
                parsed = [verb, *module.prepared(words[1:])]
            else:
                parsed = words
            options = _parser(verb, module).parse_args(parsed)
            if module is not None:
                module.run(options[verb], shlex.join(["marginface", *words]))
    except ArgumentError as error:
        message = _in_words(" ".join(str(error).split()))
        _fail(module.explained(message) if module is not None and hasattr(module, "explained") else message, 2)
    except InputError as error:
        _fail(str(error), 2)
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough
        if of_process:
            _give_up_stdout()
        sys.exit(128 + 13)
    except OSError as error:
        reason = error.strerror or error
        if of_process and error.filename is None and _is_full(sys.stdout):
            _give_up_stdout()
            _fail(f"stdout: {reason}; make room, or send the output elsewhere", 2)
        _fail(f"{error.filename or 'a file'}: {reason}; nothing was left half-written", 2)
    except UnicodeEncodeError as error:
        if as_text(error.object) == error.object:
            raise
        _fail(f"{as_text(error.object)}: this name is not UTF-8, which is needed for this; give it another", 2)
    except Stopped as stopped:
        _fail(str(stopped), stopped.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


@contextmanager
def _outside_current_folder() -> Iterator[None]:
    """Within, the current folder is Python's own, so that no library is loaded from a folder of data.

    cuSPARSELt, which CUDA builds of torch load, looks for libcuda.so.1 in the current folder before the system's.
    """
    try:
        folder = Path.cwd()
    except FileNotFoundError:  # removed, so it holds nothing
        yield
        return
    os.chdir(sys.prefix)
    try:
        yield
    finally:
        os.chdir(folder)


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


@contextmanager
def _flushed() -> Iterator[None]:
    """Write what stdout still holds at the end, so that a failure of that is reported like any other."""
    try:
        yield
    finally:
        if sys.stdout is not None:  # None where it was closed before the start
            sys.stdout.flush()


def _is_full(stream: TextIO | None) -> bool:
    """Whether it does not take an empty line: what `print` raises then names no file."""
    try:
        return stream is not None and os.write(stream.fileno(), b"\n") != 1
    except OSError:
        return True


def _give_up_stdout() -> None:
    """Send what is left to write nowhere, so that Python does not complain about it at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> None:
    shown = CONTROLS.sub("?", message)  # names in files may hold a terminal's commands
    with suppress(OSError):  # stderr may be full, too
        print(f"marginface: {shown}", file=sys.stderr, flush=True)
    sys.exit(code)


def _in_words(message: str) -> str:
    """The parser's complaint about a value, in plain words."""
    key = re.fullmatch(r'Parser key "([\w.]+)": (?:Not of type [\w ]+: )?(.*)', message)
    if key is None:
        return message
    name, reason = key[1] if "." in key[1] else f"--{key[1]}", key[2]
    if found := re.fullmatch(r"Expected an? <class .(\w+).>\. Got value: (.*)", reason):
        return f"{name} is {found[2]}: give {TYPES.get(found[1], f'a {found[1]}')}"
    if found := re.fullmatch(r".* (int|float)\b.*: '(.*)'", reason):
        return f"{name} is {found[2]}: give {TYPES[found[1]]}"
    if found := re.fullmatch(r"(.*) does not conform to restriction (.*)", reason):
        limits = found[2].replace("v>=", "at least ").replace("v<=", "at most ").replace("v>", "above ")
        return f"{name} is {found[1]}: give a number that is {limits.replace('v<', 'below ')}"
    return message


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
