"""The house: imports point downwards, leaves never import the package root, and every room has its tests."""

import ast
import re
import sys
from pathlib import Path

import pytest

from marginface import optional_imports

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "marginface"
FLOORS = {
    "errors": 0,
    "files": 0.5, "filenames": 0.5, "ranges": 0.5, "untrusted": 0.5,  # they raise what errors defines
    "optional_imports": 0.5,
    "tensor_file": 1,
    "terminal": 0.7,  # writes what filenames cannot spell
    "processes": 1, "margins": 1, "backbones": 1, "readers": 1, "faces": 1, "metrics": 1, "detection": 1,
    "embedder": 2, "protocols": 2, "softmax": 2, "loading": 2, "report": 2,
    "align": 3, "evaluate": 3, "convert": 3, "fetch": 3, "inspect": 3, "weights": 3,
    "gallery": 3,
    "training": 4, "export": 4, "video": 4, "demo": 4,
    "commands": 5,
    "cli": 6,
    "__main__": 7,
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
REQUIRED = {
    "cv2", "jinja2", "jsonargparse", "lightning_fabric", "numpy", "rich", "safetensors", "simplejpeg", "tensorboard",
    "torch", "yaml",
}  # fmt: skip
"""What the dependencies of the package are imported as."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of this package that a file imports, at the top or inside a function; "" is the package root."""
    rooms = set()
    package = ("marginface", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            names = [f"{module}.{alias.name}" if module == "marginface" else module for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] if "." in name else "" for name in names if name.split(".")[0] == "marginface"}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":  # the package root may import anything; nothing below may import it
        return
    assert room in FLOORS, f"{room} has no floor: draw it here and in docs/architecture.md"
    for other in imported_rooms(path) - {room}:
        assert other != "", f"{path} imports the package root"
        assert FLOORS[other] < FLOORS[room], f"{room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_file_imports_optional_libraries(path: Path) -> None:
    """A library that is imported elsewhere would be imported before its telemetry is disabled."""
    if path != Path(optional_imports.__file__):
        foreign = foreign_imports(path.read_text(encoding="utf-8"))
        assert not foreign, f"{path} imports {foreign}; use load_library of optional_imports.py"


def foreign_imports(source: str) -> list[str]:
    """What a file imports, by whichever way, beyond the standard library, this package and REQUIRED."""
    known, found = {*sys.stdlib_module_names, *REQUIRED, "marginface"}, []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] not in known]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found += [str(node.module)] if str(node.module).split(".")[0] not in known else []
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            begins = re.sub("^f?['\"]", "", ast.unparse(node.args[0])) if node.args else ""
            if name in ("import_module", "__import__") and not begins.startswith("marginface."):
                found.append(ast.unparse(node))
            if name == "load_library" and begins.rstrip("'").split(".")[0] not in optional_imports.EXTRAS:
                found.append(f"{ast.unparse(node)}, of no extra")
    return found


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("import onnxruntime", ["onnxruntime"]),
        ("def f():\n    from openvino.tools import ovc", ["openvino.tools"]),
        ("import importlib\nimportlib.import_module('gradio')", ["importlib.import_module('gradio')"]),
        ("from importlib import import_module as load\nimport importlib as i\ni.import_module(name)", None),
        ("__import__('wandb')", ["__import__('wandb')"]),
        ("load_library('unheard_of')", ["load_library('unheard_of'), of no extra"]),
        ("import torch.onnx, numpy\nfrom . import a\nload_library('onnx.helper'), load_library('fastapi')", []),
        ("importlib.import_module(f'marginface.commands.{verb}')", []),
    ],
)
def test_foreign_imports_are_found(source: str, imported: list[str] | None) -> None:
    found = foreign_imports(source)
    assert found == imported if imported is not None else found


def test_the_picture_names_every_room() -> None:
    picture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = {room for room in map(room_of, FILES) if room not in ("__init__", "__main__") and room not in picture}
    assert not missing


def test_every_file_says_why_it_exists() -> None:
    silent = [path for path in FILES if (text := path.read_text(encoding="utf-8").strip()) and not described(text)]
    assert not silent


def described(text: str) -> bool:
    return ast.get_docstring(ast.parse(text)) is not None
