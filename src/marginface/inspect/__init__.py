"""Looks a data set over before anything is learned from it. For the command line."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marginface.embedder import Embedder
from marginface.inspect.duplicates import alike, groups, same_bytes
from marginface.inspect.findings import Findings, Overlap, most_frequent, print_findings
from marginface.inspect.page import write_page
from marginface.inspect.people import People, examine
from marginface.inspect.survey import TOGETHER, Progress, Survey, survey
from marginface.loading.decode import decode_batch
from marginface.readers import open_reader
from marginface.readers.base import Reader
from marginface.readers.verification import is_verification, open_verification

__all__ = ["Findings", "inspect", "print_findings", "write_page"]

NEAR = 20  # of 256 bits of the perceptual hash


def inspect(
    spec: str,
    against: Sequence[str] = (),
    model: Embedder | None = None,
    workers: int = 2,
    progress: Progress = lambda done, total: None,
    allow_outside: bool = False,
) -> tuple[Findings, Reader]:
    """What is in the set `spec`, and the reader to show it with.

    against: benchmarks, stored verification sets or labelled sets, whose images and people must not be in it.
    model: with one, images are also compared by embedding, and must have the size that it expects.
    Raises InputError if the set cannot be opened; what is wrong with single images is what this is about.
    """
    reader = open_reader(spec, allow_outside)
    seen = survey(reader.read, len(reader), workers, progress)
    missing = list(getattr(reader, "without_images", []))
    stated = getattr(reader, "property_classes", None)
    findings = Findings(
        name=spec,
        keys=seen.keys,
        labels=reader.labels,
        num_classes=reader.num_classes,
        sizes=most_frequent(seen.sizes[seen.readable]),
        grey=np.flatnonzero(seen.grey).tolist(),
        unreadable=seen.unreadable,
        without_images=missing,
        stated_classes=stated if stated not in (reader.num_classes, reader.num_classes + len(missing)) else None,
        same_bytes=same_bytes(seen.exact, seen.readable),
        alike=_alike_groups(seen),
        overlaps=[_overlap(seen, reader, one, workers, allow_outside) for one in against],
        left_out=dict(getattr(reader, "left_out", {})),
        people=None if model is None else _people(seen, reader, model),
    )
    return findings, reader


def _alike_groups(seen: Survey) -> list[np.ndarray]:
    """Groups of near duplicates with at least two different files in them."""
    found = groups(alike(seen.looks, seen.readable, NEAR), len(seen))
    return [group for group in found if len(set(seen.exact[group].tolist())) > 1]


def _overlap(seen: Survey, reader: Reader, benchmark: str, workers: int, allow_outside: bool) -> Overlap:
    if Path(benchmark).exists() and is_verification(Path(benchmark)):
        images, names = open_verification(benchmark, allow_outside).images, set[str]()
        other = survey(lambda rows: [images[row] for row in rows], len(images), workers)
    else:
        opened = open_reader(benchmark, allow_outside)
        other = survey(opened.read, len(opened), workers)
        names = set(getattr(opened, "class_names", None) or ())
    equal = seen.readable & np.isin(seen.exact, other.exact[other.readable])
    both = np.concatenate([seen.looks, other.looks])
    pairs = alike(both, np.concatenate([seen.readable, other.readable]), NEAR)
    pairs = pairs[(pairs[:, 0] < len(seen)) & (pairs[:, 1] >= len(seen))]
    near = np.setdiff1d(pairs[:, 0], np.flatnonzero(equal))
    shared = sorted(names & set(getattr(reader, "class_names", None) or ()))
    return Overlap(benchmark, np.flatnonzero(equal).tolist(), near.tolist(), shared)


def _people(seen: Survey, reader: Reader, model: Embedder) -> People:
    """Embeds what can be read; rows of the result are those of the reader."""
    rows = np.flatnonzero(seen.readable)
    parts = []
    for start in range(0, len(rows), TOGETHER):
        images, _ = decode_batch(reader.read(rows[start : start + TOGETHER].tolist()), model.preprocessing.size)
        parts.append(model.embed(images))
    found = examine(np.concatenate(parts), reader.labels[rows])
    own = np.ones(len(seen), dtype=np.float32)
    own[rows] = found.own
    better = {int(rows[row]): value for row, value in found.better.items()}
    return People(own, found.stranger, found.usual, rows[found.odd], better, found.same)
