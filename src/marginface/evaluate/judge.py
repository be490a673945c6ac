"""Further judgement of one result: error rates of groups of people, and what a quality score is worth."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from marginface.errors import InputError
from marginface.evaluate.attributes import Attributes
from marginface.evaluate.benchmark import Result
from marginface.evaluate.embeddings import Embeddings
from marginface.metrics.groups import GroupTable, group_table
from marginface.metrics.reject import RejectCurve, pair_quality, reject_curve
from marginface.metrics.result import VerificationResult
from marginface.metrics.variants import magface_accuracy

NORM = "norm"


@dataclass(frozen=True)
class Questions:
    """by: columns whose groups are told apart. reject: columns, or `norm`, that comparisons are rejected by.

    fmr: false match rate of the error-versus-reject curves. attributes: where the columns are.
    magface: also MagFace's ten-fold accuracy.
    """

    by: Sequence[str] = ()
    reject: Sequence[str] = ()
    fmr: float = 1e-3
    attributes: Attributes | None = None
    magface: bool = False

    def __post_init__(self) -> None:
        if self.attributes is None and (wanted := [name for name in (*self.by, *self.reject) if name != NORM]):
            raise InputError(f"give the file that column '{wanted[0]}' is in with --csv FILE")


@dataclass
class Judgement:
    """All that an evaluation found, in the order of its tables."""

    results: list[Result] = field(default_factory=list)
    groups: list[GroupTable] = field(default_factory=list)
    rejects: list[RejectCurve] = field(default_factory=list)


def judge(results: Sequence[Result], embeddings: Embeddings, questions: Questions, into: Judgement) -> None:
    """Adds the results of one model on one benchmark, and answers about those of pairs; searches have none."""
    results = [_with_magface(one, embeddings) for one in results] if questions.magface else results
    into.results += results
    for result in results:
        if isinstance(result, VerificationResult):
            into.groups += [_groups(result, column, questions.attributes) for column in questions.by]
            into.rejects += [_rejects(result, name, embeddings, questions) for name in questions.reject]


def _with_magface(result: Result, embeddings: Embeddings) -> Result:
    """MagFace's `eval_1v1` among the figures of pairs with folds."""
    if not isinstance(result, VerificationResult) or result.distances is None:
        return result
    trials = result.trials
    found, _ = magface_accuracy(embeddings.fused, trials.first, trials.second, trials.same, trials.folds)
    figures = {
        "MagFace accuracy": found.mean,
        "MagFace accuracy std": found.std,
        "MagFace threshold": found.threshold,
    }
    return dataclasses.replace(result, figures={**result.figures, **figures})


def _groups(result: VerificationResult, column: str, attributes: Attributes | None) -> GroupTable:
    if attributes is None:
        raise InputError(f"give the file that column '{column}' is in with --csv FILE")
    values = attributes.groups(column, _keys(result))
    sides = values[result.trials.first], values[result.trials.second]
    title = f"{column}, {result.model} on {result.benchmark}"
    return group_table(result.scores, result.trials.same, sides, result.trials.people, result.threshold, column=title)


def _rejects(result: VerificationResult, name: str, embeddings: Embeddings, questions: Questions) -> RejectCurve:
    keys = _keys(result)
    if name == NORM:
        quality = embeddings.norms
        if len(quality) != len(keys):
            raise InputError(f"{result.benchmark} compares templates of several images, which have no embedding norm")
    elif questions.attributes is None:
        raise InputError(f"give the file that column '{name}' is in with --csv FILE")
    else:
        quality = questions.attributes.numbers(name, keys)
    pairs = pair_quality(np.asarray(quality), result.trials.first, result.trials.second)
    label = f"{name}, {result.model} on {result.benchmark}"
    return reject_curve(result.scores, result.trials.same, pairs, name=label, fmr=questions.fmr)


def _keys(result: VerificationResult) -> Sequence[str]:
    if result.trials.keys is None:
        raise InputError(f"{result.benchmark} does not name its images")
    return result.trials.keys
