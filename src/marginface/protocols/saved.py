"""Results on disk: the comparisons and their scores, so that models can be compared without embedding again.

One npz a run (`scores.npz`), without pickles. Written by `evaluate`, read by `marginface compare`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.files import create_file
from marginface.metrics.result import Trials, VerificationResult, verify_distances
from marginface.readers.numpy_files import read_npz
from marginface.untrusted import parse_json

MOST_FOLDS = 1000


def save_results(path: str | Path, results: Sequence[VerificationResult], overwrite: bool = False) -> None:
    """Keep the results of benchmarks with folds; others (millions of pairs) are left out.

    Raises InputError for a file that exists, unless `overwrite` is set.
    """
    arrays: dict[str, np.ndarray] = {}
    facts: list[dict[str, Any]] = []
    for result in results:
        if result.distances is None:
            continue
        trials, number = result.trials, len(facts)
        arrays |= {
            f"{number}.distances": result.distances,
            f"{number}.first": trials.first,
            f"{number}.second": trials.second,
            f"{number}.same": trials.same,
            f"{number}.folds": np.concatenate(list(trials.folds)),
            f"{number}.fold_sizes": np.array([len(fold) for fold in trials.folds]),
            f"{number}.subjects": np.array([]) if trials.subjects is None else trials.subjects,
        }
        facts.append(
            {
                "model": result.model,
                "benchmark": trials.benchmark,
                "keys": None if trials.keys is None else list(trials.keys),
                "notes": list(trials.notes),
                "xnorm": result.xnorm,
                "fars": [tar.far for tar in result.tars],
            }
        )
    with create_file(path, overwrite) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]


def load_results(path: str | Path, replicates: int = 1000) -> list[VerificationResult]:
    """What `save_results` kept, every figure computed anew. Raises InputError for other or damaged files."""
    try:
        kept = read_npz(Path(path))
        facts = parse_json(str(kept["facts"]))
        return [_restored(kept, number, fact, replicates) for number, fact in enumerate(facts)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        reason = str(error) if isinstance(error, InputError) else repr(error)
        raise InputError(f"{path} holds no results of an evaluation ({reason[:200]}); evaluate again") from error


def _restored(kept: Any, number: int, fact: dict[str, Any], replicates: int) -> VerificationResult:
    arrays = {name: kept[f"{number}.{name}"] for name in ("distances", "first", "second", "same", "subjects")}
    if len(kept[f"{number}.fold_sizes"]) > MOST_FOLDS:
        raise ValueError(f"it claims {len(kept[f'{number}.fold_sizes']):,} folds")
    folds = np.split(kept[f"{number}.folds"], np.cumsum(kept[f"{number}.fold_sizes"])[:-1])
    pairs = np.arange(len(arrays["distances"]))
    if not np.array_equal(np.sort(np.concatenate(folds)), pairs) or not all(len(fold) for fold in folds):
        raise ValueError("the folds do not hold every pair once")
    if any(arrays[name].shape != pairs.shape for name in ("first", "second", "same")):
        raise ValueError("sides, flags and distances are not of one length")
    trials = Trials(
        benchmark=fact["benchmark"],
        first=arrays["first"],
        second=arrays["second"],
        same=arrays["same"],
        folds=folds,
        subjects=arrays["subjects"] if len(arrays["subjects"]) else None,
        keys=fact["keys"],
        notes=fact["notes"],
    )
    return verify_distances(
        arrays["distances"],
        trials,
        model=fact["model"],
        xnorm=fact["xnorm"],
        fars=fact["fars"],
        replicates=replicates,
    )
