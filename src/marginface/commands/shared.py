"""What several commands need."""

from functools import cache

from jsonargparse import ArgumentParser
from rich.console import Console

from marginface.embedder import Embedder, default_device
from marginface.loading.alignment import Alignment, describe_mismatch
from marginface.readers.containment import ALLOW_OUTSIDE
from marginface.terminal import print_line
from marginface.weights import load
from marginface.weights.opening import describe_import


def load_model(model: str) -> Embedder:
    """A model's folder, a run's, a published checkpoint, or org/name on the Hugging Face Hub.

    Prints, once, how a published checkpoint was understood: which of its networks was taken, and what was changed.
    """
    loaded = load(model, default_device())
    _say_once(describe_import(model, loaded))
    return loaded


def notice_alignment(name: str, found: Alignment | None, model: Embedder) -> None:
    """Print, once, that the faces of a set are aligned otherwise than the model takes them."""
    _say_once(describe_mismatch(name, found, model.preprocessing.template, model.preprocessing.size))


@cache
def _say_once(sentence: str) -> None:
    print_sentence(sentence)


def print_sentence(sentence: str) -> None:
    """Prints it on standard error; nothing if it is empty."""
    if sentence:
        print_line(sentence, Console(stderr=True))


def add_allow_outside(parser: ArgumentParser) -> None:
    """The one word for it in every verb that reads a data set; `train` has it as data.allow_outside."""
    parser.add_argument("--allow-outside", action="store_true", help=ALLOW_OUTSIDE)


def add_overwrite(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that exist, and folders that marginface wrote"
    )
