"""Results to files: JSON, the scores beside it for `marginface compare`, and one HTML page."""

import contextlib
import dataclasses
import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.evaluate.benchmark import Benchmark, Result
from marginface.filenames import as_file_name
from marginface.files import check_files, create_file
from marginface.metrics.compare import Comparison
from marginface.metrics.groups import GroupTable
from marginface.metrics.reject import RejectCurve
from marginface.metrics.result import VerificationResult
from marginface.metrics.search_result import IdentificationResult
from marginface.metrics.variants import openvino_lfw
from marginface.protocols.saved import save_results
from marginface.report import PictureOf, Provenance, write_report

MEASURED_WITH = ("marginface", "torch", "numpy", "opencv-python-headless")


def publish(
    results: Sequence[Result],
    benchmarks: Sequence[Benchmark],
    *,
    title: str,
    command: str,
    json_file: str | Path | None,
    report_file: str | Path | None,
    training: Sequence[Mapping[str, str]] | None = None,
    samples: np.ndarray | None = None,
    groups: Sequence[GroupTable] = (),
    rejects: Sequence[RejectCurve] = (),
    comparisons: Sequence[Comparison] = (),
    overwrite: bool = False,
) -> None:
    """Write the results as JSON, the scores of pairs beside it, and a page, each with what it takes to repeat them.

    Raises InputError for a file that exists, unless `overwrite` is set or it is the page of an earlier evaluation.
    """
    verifications, searches = split_results(results)
    provenance = Provenance(
        command=command,
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions={"python": platform.python_version(), **{name: version(name) for name in MEASURED_WITH}},
        checksums={benchmark.name: benchmark.checksum() for benchmark in benchmarks},
    )
    if json_file is not None:
        content = {
            **dataclasses.asdict(provenance),
            "results": [result.to_json() for result in results],
            "groups": [dataclasses.asdict(group) for group in groups],
            "error_versus_reject": [curve.to_json() for curve in rejects],
            "comparisons": [dataclasses.asdict(comparison) for comparison in comparisons],
        }
        with create_file(json_file, overwrite) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        save_results(scores_beside(json_file), verifications, overwrite)
    if report_file is not None and results:
        write_report(
            report_file,
            verifications,
            title,
            training=training,
            provenance=provenance,
            pictures=_pictures(benchmarks),
            samples=samples,
            searches=searches,
            groups=groups,
            rejects=rejects,
            comparisons=comparisons,
            overwrite=overwrite,
        )


def check_published(
    json_file: str, report_file: str, overwrite: bool, reads: Sequence[str], roc_file: str = ""
) -> None:
    """Raise InputError where `publish` or `write_roc` would, before the work; "" is no file. reads: what is read."""
    scores = scores_beside(json_file) if json_file else None
    check_files([json_file, scores, report_file, roc_file], overwrite, reads)


def _pictures(benchmarks: Sequence[Benchmark]) -> dict[str, PictureOf]:
    """By benchmark; none of those whose images are not there, as embeddings of anybody may be scored without."""
    found: dict[str, PictureOf] = {}
    for one in benchmarks:
        with contextlib.suppress(InputError):
            one.images.check()
            found |= {one.name: one.picture, f"{one.name} 1:1": one.picture}
    return found


def write_roc(path: str | Path, results: Sequence[Result], overwrite: bool = False) -> None:
    """Write OpenVINO's ROC file, lines `tpr fpr`, of the model under study; with several benchmarks one file per name.

    Raises InputError when no result has folds, and for a file that exists, unless `overwrite` is set.
    """
    last = {one.benchmark: one for one in split_results(results)[0] if one.distances is not None}
    if not last:
        raise InputError("--roc-file is for pairs with folds, such as lfw:ROOT or lfw.bin; none was evaluated")
    for name, result in last.items():
        if result.distances is not None:
            lines = openvino_lfw(result.distances / 2, result.trials.same, len(result.trials.folds)).roc_lines()
            target = Path(path) if len(last) == 1 else Path(path).with_stem(f"{Path(path).stem}-{as_file_name(name)}")
            with create_file(target, overwrite) as temporary:
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def split_results(results: Sequence[Result]) -> tuple[list[VerificationResult], list[IdentificationResult]]:
    """Those of pairs and those of searches."""
    pairs = [one for one in results if isinstance(one, VerificationResult)]
    return pairs, [one for one in results if isinstance(one, IdentificationResult)]


def scores_beside(json_file: str | Path) -> Path:
    """metrics.json -> metrics.scores.npz, which holds every pair's distance."""
    return Path(json_file).with_suffix(".scores.npz")
