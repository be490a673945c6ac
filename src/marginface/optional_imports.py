"""Libraries of the optional extras, imported with their telemetry disabled. Floor 0.5: raises what `errors` defines.

No other file imports a library that is not among the package's dependencies: a library imported before its switch is
set has already looked up its maker's server. `tests/test_structure.py` holds every other file to that.
"""

import importlib
import logging.config
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from marginface.errors import InputError

TELEMETRY_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime: read when its native library is loaded
    "HF_HUB_DISABLE_TELEMETRY": "1",  # the Hugging Face Hub's client, which timm and Gradio import
    "HF_XET_TELEMETRY_ENABLED": "0",  # the Hub's transfers of large files
    "GRADIO_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "DO_NOT_TRACK": "1",  # what others agreed upon
}
"""Environment variables that processes started by a library inherit."""
EXTRAS = {
    "dlib": "demo",
    "fastapi": "demo",
    "gradio": "demo",
    "h5py": "hdf5",
    "huggingface_hub": "hub",
    "milvus_lite": "demo",
    "mlflow": "mlflow",
    "msgpack": "lmdb",
    "nncf": "openvino",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "openvino": "openvino",
    "pyarrow": "parquet",
    "pymilvus": "demo",
    "pytorch_lightning": "wandb",
    "sklearn": "fetch",
    "starlette": "demo",
    "timm": "timm",
    "uvicorn": "demo",
    "wandb": "wandb",
    "webdataset": "webdataset",
}
"""Library -> an extra of the package that brings it."""


def disable_telemetry() -> None:
    """Set the switches of all libraries, for this process and those it starts."""
    os.environ.update(TELEMETRY_OFF)
    # OpenVINO and NNCF report by this package, and go without it; None makes its import fail
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))


def load_library(module: str, purpose: str = "this command") -> Any:
    """The module of an optional library, such as "onnxruntime.quantization", imported with telemetry disabled and
    the logging of the program left as it is.

    purpose: what needs it, the subject of the message. Raises InputError, naming the extra that brings it, if it
    cannot be imported.
    """
    disable_telemetry()
    try:
        with _logging_kept():
            return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise InputError(
            f"{purpose} needs {library}, which cannot be imported ({error});"
            f" install it with: pip install 'marginface[{EXTRAS[library]}]'"
        ) from error


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Within, nobody configures logging: pymilvus and MLflow do when imported, which closes all handlers there are."""
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        yield
    finally:
        logging.config.dictConfig = configure
