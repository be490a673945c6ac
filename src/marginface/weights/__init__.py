"""Published checkpoints in, known by their keys and never by their file names; our weights out."""

from marginface.weights.base import ImportedModel, Usage
from marginface.weights.importing import SOURCES, import_checkpoint, recognise

__all__ = ["SOURCES", "ImportedModel", "Usage", "import_checkpoint", "recognise"]
