"""Where else the numbers of a run go: TensorBoard always, Weights & Biases or MLflow by `train.logger`."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from marginface.errors import InputError
from marginface.optional_imports import load_library

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
NEEDS = {"tensorboard": (), "wandb": ("pytorch_lightning", "wandb"), "mlflow": ("pytorch_lightning", "mlflow")}
PROJECT = "marginface"


def check_logger(name: str) -> None:
    """Raises InputError, with what to install, for a logger that cannot be had here."""
    for package in NEEDS[name]:
        if find_spec(package) is None:
            raise InputError(f"train.logger {name} needs {package}: pip install 'marginface[{name}]'")


def create_loggers(name: LoggerName, folder: Path, config: dict[str, Any]) -> "list[Logger]":
    """TensorBoard in the run's folder, and the one named beside it, which is told the whole configuration.

    Weights & Biases obeys WANDB_MODE and so on, its project is `marginface`; MLflow writes to MLFLOW_TRACKING_URI, or
    into the run's folder without one.
    """
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger  # slow; the configuration imports this file

    loggers: list[Logger] = [TensorBoardLogger(folder, name="tensorboard", version="")]
    if name != "tensorboard":
        loggers.append(_other(name, folder))
        loggers[-1].log_hyperparams(config)
    return loggers


def _other(name: LoggerName, folder: Path) -> "Logger":
    loggers = load_library("pytorch_lightning.loggers")
    if name == "wandb":
        wandb: Logger = loggers.WandbLogger(name=folder.name, project=PROJECT, save_dir=folder)
        return wandb
    place = {"tracking_uri": f"sqlite:///{folder.resolve() / 'mlflow.db'}", "artifact_location": str(folder / "mlruns")}
    server = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow: Logger = loggers.MLFlowLogger(PROJECT, folder.name, **({"tracking_uri": server} if server else place))
    return mlflow
