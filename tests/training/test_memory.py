"""Freed memory is kept: measured in a process of its own, since it cannot be undone."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from marginface.training import memory

PROBE = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

before = resident()
large = bytearray(2**26)
large[::4096] = bytes(2**14)
del large
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="operating system: reads /proc")
def test_what_is_freed_stays() -> None:
    source = Path(memory.__file__).read_text(encoding="utf-8")
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("operating system: no glibc")

    def kept(code: str) -> int:
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)

    assert kept(PROBE) < 2**24
    assert kept(source + "\nassert keep_freed_memory()\n" + PROBE) > 2**25


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()
