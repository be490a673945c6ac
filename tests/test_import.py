"""What is imported before a command answers: modules are counted, not seconds."""

import subprocess
import sys

import pytest

import marginface

SLOW = {
    "import marginface": ("torch", "numpy", "cv2", "jsonargparse"),
    "import marginface.cli": ("torch", "numpy", "cv2"),
    "import marginface.commands.recipes": ("lightning_fabric", "sympy", "scipy", "matplotlib"),
    "import marginface.commands.status": ("lightning_fabric", "sympy"),
    "from marginface import load": ("lightning_fabric", "sympy", "matplotlib"),
}


def test_what_is_slow_is_imported_when_it_is_used() -> None:
    lines = ["import sys"]
    for line, modules in SLOW.items():
        lines += [
            line,
            f"found = [name for name in {modules} if name in sys.modules]",
            f"assert not found, ({line!r}, found)",
        ]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", marginface.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(marginface, name) is getattr(marginface, name)
    assert name in dir(marginface)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'emneb'"):
        marginface.emneb  # noqa: B018
