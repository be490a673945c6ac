"""Damages files of some formats and reads them, over and over: in a process that may crash, hang or swell.

Run by `test_fuzz.py`; its words are FOLDER SECONDS START END FIRST NAME...: seconds per format (0 for no limit), the
cases START to END - 1 of each format, of the first one from FIRST on. It prints format and case before reading a file,
so that the caller knows what a crash belongs to.
"""

import faulthandler
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from formats import FORMATS, Format

from marginface.errors import InputError

TIME = 20  # seconds for one file; they are small
MEMORY = 1 << 30  # bytes that reading one small file may add to the peak
ROOM = 8 << 30  # of address space, so that a fault does not take the machine's memory


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes flipped, pieces cut out, doubled, zeroed or made random, numbers made large."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(changed) + 1))
        length = int(rng.choice([1, 1, 2, 4, 8, 64]))
        match rng.integers(0, 8):
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
            case 6:  # in text: a digit becomes many
                changed[at:at] = b"9" * length
            case 7 if rng.integers(0, 4) == 0:
                del changed[at:]
    return bytes(changed)


def damaged(form: Format, whole: bytes, case: int) -> bytes:
    """The file of a case: the bytes as they lie on the disk, or in every second case what its checksums guard."""
    rng = np.random.default_rng(case)
    if form.unseal is None or form.seal is None or case % 2 == 0:
        return damage(whole, rng)
    pieces = form.unseal(whole)
    chosen = int(rng.integers(len(pieces)))
    pieces[chosen] = damage(pieces[chosen], rng)
    return form.seal(pieces)


def read_or_refuse(use: Callable[[Path], object], path: Path) -> None:
    """`use` succeeds, or refuses the file in one sentence that names it or its folder."""
    try:
        use(path)
    except InputError as refused:
        message = str(refused)
        assert path.name in message or str(path.parent) in message, message
        assert "\n" not in message, message
        assert len(message) < 1000, message


def main(folder: Path, seconds: float, start: int, end: int, first: int, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / str(number)).mkdir()
        fuzz(name, folder / str(number), range(start if number else first, end), seconds)


def fuzz(name: str, folder: Path, cases: range, seconds: float) -> None:
    form = FORMATS[name]
    path = form.make(folder)
    original = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    form.use(path)  # the valid file opens
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + ROOM, resource.RLIM_INFINITY))
    stop = time.monotonic() + seconds if seconds else float("inf")
    for case in cases:
        if time.monotonic() > stop:
            break
        print(f"{name}\t{case}", flush=True)
        for file in folder.rglob("*"):
            if file.is_file() and file not in original:
                file.unlink()  # what the reader kept of the case before
        path.write_bytes(damaged(form, original[path], case))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        faulthandler.dump_traceback_later(TIME, exit=True)
        read_or_refuse(form.use, path)
        faulthandler.cancel_dump_traceback_later()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        assert grown < MEMORY, f"reading a small file took {grown >> 20} MB"
    assert all(file.read_bytes() == content for file, content in original.items() if file != path)  # readers only read


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), *map(int, sys.argv[3:6]), sys.argv[6:])
