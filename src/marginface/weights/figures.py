"""What an evaluation said of a model, read from its JSON: for model cards and the metadata of exports."""

import math
from pathlib import Path
from typing import Any

from marginface.errors import InputError
from marginface.untrusted import read_json

BASELINES = ("pixels", "untrained network")


def read_figures(path: str | Path) -> list[dict[str, Any]]:
    """The results on pairs in the JSON that `marginface evaluate` or a run wrote, baselines left out.

    Raises InputError where the file is no such JSON, or a figure in it no finite number.
    """
    path = Path(path)
    try:
        results = read_json(path)["results"]
        found = [result for result in results if result["model"] not in BASELINES and "auc" in result]
        if not all(map(_is_sound, found)):
            raise ValueError("a figure is not a number")
        return found
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; write it with: marginface evaluate MODEL --json {path}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no evaluation; give what marginface evaluate --json wrote") from error


def _is_sound(result: dict[str, Any]) -> bool:
    """Whether what cards and metadata take of a result has the types that `to_json` gives it."""
    rows = result.get("tar_at_far") or []
    numbers = [result["auc"]["value"], result["eer"]["value"], *(row["far"] for row in rows)]
    numbers += [row[name] for row in rows for name in ("tar", "threshold") if row[name] is not None]
    numbers += [result["accuracy"]["mean"]] if result.get("accuracy") else []
    named: str = result["benchmark"]
    return named.isprintable() and all(type(n) in (int, float) and math.isfinite(n) for n in numbers)


def find_figures(model: str | Path) -> list[dict[str, Any]]:
    """Those of the run that made the model, [] where it is not in a run's folder."""
    folder = Path(model)
    for file in (folder / "metrics.json", folder.parent / "metrics.json"):
        if file.is_file():
            return read_figures(file)
    return []


def thresholds(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Benchmark -> FAR -> cosine similarity from which on a pair is accepted, where the pairs support the FAR."""
    return {
        result["benchmark"]: {
            f"{row['far']:g}": row["threshold"]
            for row in result.get("tar_at_far") or []
            if row.get("threshold") is not None and not row.get("reason")
        }
        for result in results
    }


def markdown(results: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table, "" without any."""
    if not results:
        return ""
    fars = sorted({row["far"] for result in results for row in result.get("tar_at_far") or []}, reverse=True)
    heads = ["benchmark", "accuracy %", "AUC", "EER %", *(f"TAR % @ FAR {far:g}" for far in fars)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for result in results:
        tars = {row["far"]: row["tar"] for row in result.get("tar_at_far") or []}
        accuracy = result.get("accuracy")
        cells = [
            result["benchmark"],
            f"{100 * accuracy['mean']:.2f}" if accuracy else "-",
            f"{result['auc']['value']:.4f}",
            f"{100 * result['eer']['value']:.2f}",
            *("-" if tars.get(far) is None else f"{100 * tars[far]:.2f}" for far in fars),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
