"""Models in and out: published checkpoints, known by their keys and never by their file names; the Hub; our weights."""

from marginface.weights.base import ImportedModel, Usage
from marginface.weights.heads import fill_head, take_over_head
from marginface.weights.importing import SOURCES, import_checkpoint, recognise
from marginface.weights.opening import load, load_head, save_imported, to_embedder

__all__ = [
    "SOURCES",
    "ImportedModel",
    "Usage",
    "fill_head",
    "import_checkpoint",
    "load",
    "load_head",
    "recognise",
    "save_imported",
    "take_over_head",
    "to_embedder",
]
