"""Every kind of benchmark by the word before its colon. Adding one is a file, a line here and its test."""

from collections.abc import Callable, Sequence
from pathlib import Path

from marginface.errors import InputError
from marginface.evaluate.benchmark import Benchmark, split_path
from marginface.evaluate.closed_set import open_closed_set
from marginface.evaluate.ijb import open_ijbb, open_ijbc
from marginface.evaluate.lfw import open_lfw
from marginface.evaluate.pairs import open_folder, open_stored, open_synthetic
from marginface.evaluate.tinyface import open_tinyface
from marginface.readers.verification import is_verification

KINDS: dict[str, Callable[[str, bool, bool], Benchmark]] = {
    "pairs": open_folder,
    "lfw": open_lfw,
    "ijbb": open_ijbb,
    "ijbc": open_ijbc,
    "tinyface": open_tinyface,
    "closedset": open_closed_set,
    "synthetic": open_synthetic,
}
UNDERSTOOD = (
    "a stored verification set such as lfw.bin, pairs:FOLDER (one folder a person, with FOLDER/pairs.txt or "
    "pairs:FOLDER,pairs=FILE; without either, pairs are drawn), lfw:ROOT (photographs with lfw_landmark.txt), "
    "ijbb:ROOT, ijbc:ROOT, tinyface:ROOT, closedset:FOLDER, or synthetic:identities=200,images=8,first=100000"
)


def open_benchmark(spec: str, resize: bool = False, allow_outside: bool = False) -> Benchmark:
    """From what stands behind --benchmark. Raises InputError for what is not understood, saying what is.

    Images lie in the folder that `spec` names; symbolic links and names in lists that lead elsewhere are refused,
    unless `allow_outside`. Files named in `spec` itself may lie anywhere.
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind in KINDS:
        return KINDS[kind](rest, resize, allow_outside)
    path = Path(split_path(spec)[0])
    if path.exists() and is_verification(path):
        return open_stored(spec, resize, allow_outside)
    if path.is_dir():
        return open_folder(spec, resize, allow_outside)
    if path.is_file():
        return open_stored(spec, resize, allow_outside)  # which says what is wrong with it
    raise InputError(f"benchmark {spec!r} is not understood or does not exist; give {UNDERSTOOD}")


def open_benchmarks(specs: Sequence[str], resize: bool = False, allow_outside: bool = False) -> list[Benchmark]:
    """Several at once. Raises InputError when two have one name, as their rows would be told apart by nothing."""
    found = [open_benchmark(spec, resize, allow_outside) for spec in specs]
    check_names(found)
    return found


def check_names(benchmarks: Sequence[Benchmark]) -> None:
    """Raise InputError where two have one name."""
    names = [benchmark.name for benchmark in benchmarks]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two benchmarks are called {min(doubles)}; rename a file or folder, or evaluate one by one")
