"""What a finished run leaves: the model, metrics.json and report.html. Called when the last step is done."""

import json
import time
from dataclasses import asdict

from rich.console import Console

from marginface.evaluate import measure, untrained
from marginface.files import replace_file
from marginface.training.loop import Trainer
from marginface.training.monitor import read_metrics
from marginface.training.run import Run


def finish(trainer: Trainer, run: Run, command: str, console: Console) -> None:
    """Saves the model, evaluates it beside the untrained network and raw pixels, and writes both reports."""
    trainer.model.notes["trained_by"] = command
    trainer.model.save(run.model)
