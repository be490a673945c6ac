"""What several commands need."""

from pathlib import Path

from marginface.embedder import Embedder, default_device


def load_model(folder: str) -> Embedder:
    """A model's folder, or a run's, which holds one."""
    run = Path(folder) / "model"
    return Embedder.load(run if run.is_dir() else folder, default_device())
