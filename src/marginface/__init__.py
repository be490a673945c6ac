"""marginface: train, evaluate and ship face embeddings learned with margin-based softmax losses."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
_ROOMS = {
    "Embedder": "embedder",
    "InputError": "errors",
    "Margin": "margins",
    "MarginSoftmax": "softmax",
    "create_backbone": "backbones",
    "create_margin": "margins",
    "list_backbones": "backbones",
    "list_margins": "margins",
    "load": "weights",
}


def __getattr__(name: str) -> Any:
    """The public name, imported when it is first asked for (PEP 562): torch alone takes two seconds."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"marginface.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
