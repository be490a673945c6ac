"""The house: imports point downwards, leaves never import the package root, and every room has its tests."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "marginface"
FLOORS = {
    "errors": 0,
    "files": 0.5, "filenames": 0.5, "untrusted": 0.5,  # they raise what errors defines
    "tensor_file": 1,
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


def test_the_picture_names_every_room() -> None:
    picture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = {room for room in map(room_of, FILES) if room not in ("__init__", "__main__") and room not in picture}
    assert not missing


def test_every_file_says_why_it_exists() -> None:
    silent = [path for path in FILES if (text := path.read_text(encoding="utf-8").strip()) and not described(text)]
    assert not silent


def described(text: str) -> bool:
    return ast.get_docstring(ast.parse(text)) is not None
