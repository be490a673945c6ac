"""A model x a benchmark -> results, and the reports on them. Called by the commands and by training."""

from marginface.evaluate.benchmark import Benchmark, Result
from marginface.evaluate.folder import embed_folder
from marginface.evaluate.kinds import UNDERSTOOD, open_benchmark, open_benchmarks
from marginface.evaluate.measure import measure
from marginface.evaluate.publish import publish

__all__ = [
    "UNDERSTOOD",
    "Benchmark",
    "Result",
    "embed_folder",
    "measure",
    "open_benchmark",
    "open_benchmarks",
    "publish",
]
