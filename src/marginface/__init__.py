"""marginface: train, evaluate and ship face embeddings learned with margin-based softmax losses."""

from importlib.metadata import version

from marginface.backbones import create_backbone, list_backbones
from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.margins import Margin, create_margin, list_margins
from marginface.softmax import MarginSoftmax
from marginface.weights import load

__version__ = version("marginface")

__all__ = [
    "Embedder",
    "InputError",
    "Margin",
    "MarginSoftmax",
    "__version__",
    "create_backbone",
    "create_margin",
    "list_backbones",
    "list_margins",
    "load",
]
