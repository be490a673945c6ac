"""What several commands need."""

from marginface.embedder import Embedder, default_device
from marginface.weights import load


def load_model(model: str) -> Embedder:
    """A model's folder, a run's, a published checkpoint, or org/name on the Hugging Face Hub."""
    return load(model, default_device())
