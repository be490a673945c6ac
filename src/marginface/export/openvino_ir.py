"""OpenVINO's intermediate representation: model.xml and model.bin."""

import errno
from pathlib import Path
from typing import Any

from marginface.embedder import Embedder
from marginface.export import onnx_file
from marginface.export.deployed import Interface
from marginface.files import temporary_folder
from marginface.optional_imports import load_library

XML = "model.xml"


def write(model: Embedder, folder: Path, interface: Interface, texts: dict[str, str]) -> None:
    """Both files into a folder that is there; float32 weights. Goes by way of ONNX, so both are one graph."""
    openvino = load_library("openvino", "this format")
    with temporary_folder(folder / XML) as temporary:
        file = temporary / "model.onnx"
        onnx_file.write(model, file, interface, texts)
        network = openvino.Core().read_model(file)
        save(network, folder, texts)  # which reads the weights from that file


def save(network: Any, folder: Path, texts: dict[str, str]) -> None:
    for key, text in texts.items():
        network.set_rt_info(text, ["marginface", key.replace(" ", "_")])
    try:
        load_library("openvino", "this format").save_model(network, folder / XML, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "OpenVINO could not write it whole; make room on the disk") from error
