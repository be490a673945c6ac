"""What several commands need."""

from jsonargparse import ArgumentParser

from marginface.embedder import Embedder, default_device
from marginface.readers.containment import ALLOW_OUTSIDE
from marginface.weights import load


def load_model(model: str) -> Embedder:
    """A model's folder, a run's, a published checkpoint, or org/name on the Hugging Face Hub."""
    return load(model, default_device())


def add_allow_outside(parser: ArgumentParser) -> None:
    """The one word for it in every verb that reads a data set; `train` has it as data.allow_outside."""
    parser.add_argument("--allow-outside", action="store_true", help=ALLOW_OUTSIDE)


def add_overwrite(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that exist, and folders that marginface wrote"
    )
