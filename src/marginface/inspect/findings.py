"""What an inspection found: for JSON, for the terminal, for the page, and as a list of what is clean."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marginface.files import create_file
from marginface.inspect.people import People
from marginface.readers.image_walk import list_kinds
from marginface.terminal import open_console, visible

BINS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)  # lower ends, of images of one identity


@dataclass(frozen=True)
class Overlap:
    """What a set shares with a benchmark: rows of the set that equal, or look like, one of its images; names."""

    benchmark: str
    same_bytes: list[int]
    alike: list[int]
    names: list[str]


@dataclass(frozen=True)
class Findings:
    """Rows are numbers of records, labels those of the reader.

    without_images: identities that the set declares and has no images of. stated_classes: what the property file says,
    if that is not what the set is. left_out: files of a folder that are no images, by suffix. same_bytes and alike:
    groups of rows; `across` tells those of several identities.
    """

    name: str
    keys: Sequence[str]
    labels: np.ndarray
    num_classes: int
    sizes: list[tuple[int, int, int]]  # width, height, images; the most frequent first
    grey: list[int]
    unreadable: dict[int, str]
    without_images: list[str]
    stated_classes: int | None
    same_bytes: list[np.ndarray]
    alike: list[np.ndarray]
    overlaps: list[Overlap] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    people: People | None = None

    def across(self, group: np.ndarray) -> bool:
        """Whether a group of duplicates has several labels, of which at most one can be right."""
        return len(set(self.labels[group].tolist())) > 1

    def images_per_identity(self) -> list[tuple[str, int]]:
        """(range of images, identities) for BINS."""
        counts = np.bincount(self.labels, minlength=self.num_classes)
        ends = [*(end - 1 for end in BINS[1:]), None]
        numbers = np.histogram(counts[counts > 0], bins=[*BINS, np.inf])[0].tolist()
        texts = [f"{a}" if a == b else f"{a}–{b}" if b else f"{a} or more" for a, b in zip(BINS, ends, strict=True)]
        return list(zip(texts, numbers, strict=True))

    def clean_rows(self) -> np.ndarray:
        """Rows without fault: readable, no copy of an earlier one, one label for one image, unknown to benchmarks,
        and not odd to the model if there was one."""
        bad = set(self.unreadable)
        for group in self.same_bytes:
            bad |= set(group.tolist() if self.across(group) else group[1:].tolist())
        for group in self.alike:
            bad |= set(group.tolist()) if self.across(group) else set()
        for overlap in self.overlaps:
            bad |= set(overlap.same_bytes) | set(overlap.alike)
        if self.people is not None:
            bad |= set(self.people.odd.tolist())
        return np.setdiff1d(np.arange(len(self.labels)), np.array(sorted(bad), dtype=np.int64))

    def write_clean(self, path: str | Path, overwrite: bool = False) -> int:
        """Write the keys of `clean_rows`, one per line, for `convert --subset`; return how many.

        Raises InputError for a file that exists, unless `overwrite` is set.
        """
        rows = self.clean_rows()
        with (
            create_file(path, overwrite) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape") as file,
        ):
            file.writelines(f"{self.keys[int(row)]}\n" for row in rows)
        return len(rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything, with keys instead of rows, for JSON."""

        def named(rows: Sequence[int] | np.ndarray) -> list[str]:
            return [self.keys[int(row)] for row in rows]

        found: dict[str, Any] = {
            "name": self.name,
            "images": len(self.labels),
            "identities": len(np.unique(self.labels)),
            "declared_identities": self.num_classes + len(self.without_images),
            "identities_without_images": self.without_images,
            "identities_in_property_file": self.stated_classes,
            "images_per_identity": dict(self.images_per_identity()),
            "sizes": [{"width": width, "height": height, "images": count} for width, height, count in self.sizes],
            "grey": len(self.grey),
            "unreadable": {self.keys[row]: reason for row, reason in self.unreadable.items()},
            "clean": len(self.clean_rows()),
            "files_not_taken": self.left_out,
        }
        for kind, duplicates in (("same_bytes", self.same_bytes), ("alike", self.alike)):
            found[kind] = {
                "within_identities": [named(group) for group in duplicates if not self.across(group)],
                "across_identities": [named(group) for group in duplicates if self.across(group)],
            }
        found["overlaps"] = [
            dataclasses.asdict(one) | {"same_bytes": named(one.same_bytes), "alike": named(one.alike)}
            for one in self.overlaps
        ]
        if self.people is not None:
            found["model"] = {
                "cosine_of_strangers": self.people.stranger,
                "cosine_usual": self.people.usual,
                "odd": {self.keys[int(row)]: float(self.people.own[row]) for row in self.people.odd},
                "better_label": {self.keys[row]: list(better) for row, better in self.people.better.items()},
                "same_person": [list(pair) for pair in self.people.same],
            }
        return found


def most_frequent(sizes: np.ndarray) -> list[tuple[int, int, int]]:
    """(width, height, images) of int32 (N, 2) heights and widths."""
    counts = Counter(map(tuple, sizes.tolist()))
    return [(width, height, count) for (height, width), count in counts.most_common()]


def print_findings(findings: Findings, console: Console | None = None) -> None:
    """The table for the terminal."""
    table = Table(title=Text(visible(findings.name)), show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in summary(findings):
        table.add_row(name, Text(visible(value)))
    (console or open_console()).print(table)


def summary(findings: Findings) -> list[tuple[str, str]]:
    """(what, how much) a line."""
    within = sum(not findings.across(group) for group in findings.same_bytes)
    alike_within = sum(not findings.across(group) for group in findings.alike)
    per_identity = ", ".join(f"{text}: {count:,}" for text, count in findings.images_per_identity() if count)
    lines = [
        ("images", f"{len(findings.labels):,}"),
        ("identities", f"{findings.num_classes:,} of {findings.num_classes + len(findings.without_images):,} declared"),
        ("images an identity", per_identity),
        ("sizes", ", ".join(f"{w}×{h}: {count:,}" for w, h, count in findings.sizes[:5])),
        ("grey images", f"{len(findings.grey):,}"),
        ("unreadable", f"{len(findings.unreadable):,}"),
        ("same bytes", f"{within:,} groups within identities, {len(findings.same_bytes) - within:,} across"),
        ("look alike", f"{alike_within:,} groups within identities, {len(findings.alike) - alike_within:,} across"),
    ]
    if findings.left_out:
        lines.append(("files not taken", list_kinds(findings.left_out)))
    if findings.stated_classes is not None:
        lines.append(("property file", f"is wrong: says {findings.stated_classes:,} identities"))
    for one in findings.overlaps:
        shared = (
            f"{len(one.same_bytes):,} images with the same bytes, {len(one.alike):,} alike, {len(one.names):,} names"
        )
        lines.append((f"shared with {one.benchmark}", shared))
    if findings.people is not None:
        lines.append(
            (
                "odd to the model",
                f"{len(findings.people.odd):,}, of them {len(findings.people.better):,} closer to another",
            )
        )
        lines.append(("likely one person", f"{len(findings.people.same):,} pairs of identities"))
    lines.append(("without fault", f"{len(findings.clean_rows()):,} images"))
    return lines
