"""Damages files in every way that disks, networks and attackers do; readers must read them or refuse them."""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from marginface.errors import InputError

# 500 damaged files in every run of the tests, 10,000 at night
cases = pytest.mark.parametrize(
    ("first", "count"), [(0, 500), pytest.param(500, 9_500, marks=pytest.mark.slow)], ids=["some", "many"]
)


def damaged(data: bytes, first: int, count: int) -> Iterator[bytes]:
    """`count` versions of `data` with one to four bytes flipped, pieces cut out, doubled, zeroed or made random."""
    for case in range(first, first + count):
        rng = np.random.default_rng(case)
        changed = bytearray(data)
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(0, len(changed) + 1))
            length = int(rng.choice([1, 1, 2, 4, 8, 64]))
            match rng.integers(0, 7):
                case 0 | 1 if at < len(changed):
                    changed[at] ^= 1 << int(rng.integers(0, 8))
                case 2:
                    del changed[at : at + length]
                case 3:
                    changed[at:at] = changed[max(0, at - length) : at]
                case 4:
                    changed[at : at + length] = rng.bytes(length)
                case 5:
                    changed[at : at + length] = bytes([int(rng.choice([0, 255]))]) * length
                case 6 if rng.integers(0, 4) == 0:
                    del changed[at:]
        yield bytes(changed)


def damaged_members(data: bytes, first: int, count: int) -> Iterator[bytes]:
    """`count` versions of an npz of which one member is damaged, its checksum right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for case in range(first, first + count):
        chosen = sorted(members)[case % len(members)]
        (changed,) = damaged(members[chosen], case, 1)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in (members | {chosen: changed}).items():
                archive.writestr(name, content)
        yield buffer.getvalue()


def survives(path: Path, use: Callable[[], object], named: Path | None = None) -> None:
    """`use` succeeds, or refuses the file in one sentence that names it (or the folder `named`)."""
    try:
        use()
    except InputError as refused:
        message = str(refused)
        assert message.startswith(str(named or path))
        assert "\n" not in message
        assert len(message) < 1000
