"""What an exported file says of itself: network, preprocessing, template, thresholds. Texts, for every format."""

import json
from typing import Any

import numpy as np

from marginface.embedder import Embedder
from marginface.export.deployed import Interface
from marginface.faces.template import template
from marginface.filenames import as_text
from marginface.weights.figures import thresholds


def metadata(model: Embedder, name: str, interface: Interface, results: list[dict[str, Any]]) -> dict[str, str]:
    """Key -> text. results: of `weights.figures`, from which the thresholds come."""
    return {
        "format": "marginface 1",
        "name": as_text(name),
        **interface.describe(model),
        "mirror image": model.preprocessing.flip,
        "template": json.dumps(np.round(points(model), 4).tolist()),
        "thresholds": json.dumps(thresholds(results)),
        "description": json.dumps(model.description()),
    }


def points(model: Embedder) -> np.ndarray:
    """x, y of eyes, nose and mouth corners in the image the model takes: float64 (5, 2)."""
    height, width = model.preprocessing.image_size
    return template(height, model.preprocessing.template) - [(height - width) / 2, 0]
