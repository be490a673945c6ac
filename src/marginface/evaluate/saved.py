"""Finished evaluations on disk: RUN/metrics.json or FILE.json, for `marginface threshold` and `compare`."""

import dataclasses
import filecmp
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marginface.embedder import CONFIG, WEIGHTS
from marginface.errors import InputError
from marginface.evaluate.publish import scores_beside
from marginface.files import replace_file
from marginface.metrics.advice import ThresholdAdvice
from marginface.metrics.result import VerificationResult
from marginface.protocols.saved import load_results
from marginface.untrusted import read_json


def json_of(result: str | Path) -> Path:
    """The JSON of a run's folder, or the file itself. Raises InputError when there is none."""
    path = Path(result)
    file = path / "metrics.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{file} does not exist: give a run, or the file that `marginface evaluate ... --json FILE` wrote"
        )
    return file


def choose_result(result: str | Path, benchmark: str = "") -> Mapping[str, Any]:
    """The last result on pairs in the file, of `benchmark` where given: that of the model under study."""
    file = json_of(result)
    try:
        found = read_json(file)["results"]
        rows = [row for row in found if row.get("roc")]
        names = list(dict.fromkeys(str(row["benchmark"]) for row in rows))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} holds no results of an evaluation ({error!r}); evaluate again") from error
    if not rows or (benchmark and benchmark not in names):
        raise InputError(f"{file} has no ROC of {benchmark or 'any benchmark'}; it has {', '.join(names) or 'none'}")
    if not benchmark and len(names) > 1:
        raise InputError(f"{file} holds several benchmarks, choose one with --benchmark: {', '.join(names)}")
    chosen: Mapping[str, Any] = [row for row in rows if str(row["benchmark"]) == (benchmark or names[0])][-1]
    return chosen


def store_threshold(model: str | Path, advice: ThresholdAdvice) -> Path:
    """Adds the advice to notes.threshold of the model's config.json, a list with one entry a FAR; returns its path."""
    folder = Path(model) / "model" if (Path(model) / "model").is_dir() else Path(model)
    file = folder / CONFIG
    try:
        config = read_json(file)
        notes = config.setdefault("notes", {})
        others = [one for one in notes.get("threshold", []) if one["far"] != advice.far]
        notes["threshold"] = sorted([*others, advice.to_json()], key=lambda one: float(one["far"]))
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise InputError(f"{file} is not a marginface model description ({error}); give a model's folder") from error
    with replace_file(file) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return file


def studied(result: str | Path, replicates: int = 1000) -> list[VerificationResult]:
    """The model under study on each benchmark, the scores as they were, named after the run or file.

    Raises InputError when no scores lie beside the JSON.
    """
    file = json_of(result)
    scores = scores_beside(file)
    if not scores.is_file():
        raise InputError(f"{scores} does not exist: evaluate again with `marginface evaluate ... --json {file}`")
    last = {one.benchmark: one for one in load_results(scores, replicates)}
    if not last:
        raise InputError(f"{scores} holds no pairs with folds; give compare the models and --benchmark")
    return [dataclasses.replace(one, model=str(result)) for one in last.values()]


def find_models(run: str | Path) -> dict[Path, str]:
    """Return each model of a run once, numbered ones first in their order, and its name: ElasticFace's table of epochs.

    Folders of models in RUN and RUN/checkpoints, or the files `*backbone.pth` of other trainers. Of several with the
    same weights the first stands for all: "step-12 (best, model)".
    Raises InputError where there are none.
    """
    run = Path(run)
    folders = {path.parent for pattern in (f"*/{CONFIG}", f"checkpoints/*/{CONFIG}") for path in run.glob(pattern)}
    last = run / "model"
    found = sorted({*folders, *run.glob("*backbone.pth")} - {last}, key=_by_number)
    found += [last] if last in folders else []
    if not found:
        raise InputError(f"{run} holds no models: give a run's folder, such as runs/quickstart")
    same: dict[Path, list[str]] = {}
    for path in found:
        twin = next((one for one in same if _same_weights(one, path)), None)
        if twin is None:
            same[path] = []
        else:
            same[twin].append(path.name)
    return {path: path.name + (f" ({', '.join(others)})" if others else "") for path, others in same.items()}


def _same_weights(first: Path, second: Path) -> bool:
    one, other = (path / WEIGHTS if path.is_dir() else path for path in (first, second))
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _by_number(path: Path) -> tuple[bool, list[tuple[bool, int, str]]]:
    """10 after 9; names without numbers at the end."""
    return not re.search(r"\d", path.name), [
        (not part.isdecimal(), int(part or 0) if part.isdecimal() else 0, part)
        for part in re.split(r"(\d+)", path.name)
    ]
