"""The inspection as one self-contained HTML page with pictures. Called by the command line."""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from marginface.errors import InputError
from marginface.filenames import as_text
from marginface.files import create_file
from marginface.inspect.findings import Findings, summary
from marginface.loading.decode import decode
from marginface.readers.base import Reader
from marginface.report.pictures import jpeg_uri

SHOWN = 24  # groups of a kind
OF_A_GROUP = 6  # images of one
SAMPLES = 48


def write_page(path: str | Path, findings: Findings, reader: Reader, overwrite: bool = False) -> None:
    """Write the page; `reader` shows the images that the findings name.

    Raises InputError for a file that exists, unless `overwrite` is set or it is an earlier page.
    """
    show = _Pictures(findings, reader)
    people = findings.people
    across = [group for group in (*findings.same_bytes, *findings.alike) if findings.across(group)]
    within = [group for group in (*findings.same_bytes, *findings.alike) if not findings.across(group)]
    sample = np.unique(np.linspace(0, len(findings.labels) - 1, SAMPLES).astype(np.int64))
    sections: list[tuple[str, str, Iterable[list[dict[str, Any]]]]] = [
        ("One image under several names", "At most one of the labels is right.", map(show.group, across[:SHOWN])),
        ("Duplicates within identities", "They count more than once in training.", map(show.group, within[:SHOWN])),
    ]
    sections += [
        (f"Shared with {one.benchmark}", "The benchmark would be measured on what was learned.",
         [show.group(np.array(one.same_bytes + one.alike)[:SHOWN], SHOWN)])
        for one in findings.overlaps
    ]  # fmt: skip
    if people is not None:
        worst = people.odd[np.argsort(people.own[people.odd])][: 2 * SHOWN]
        sections += [
            ("Odd images", "Further from their identity than strangers are.", [show.group(worst, 2 * SHOWN)]),
            (
                "Likely one person",
                "Identities as close as images of one.",
                (show.pair(*p) for p in people.same[:SHOWN]),
            ),
        ]
    sections.append(("A sample", "Images at equal steps through the set.", [show.group(sample, SAMPLES)]))
    template = (resources.files("marginface.inspect") / "page.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(template)
    bars = findings.images_per_identity()
    html = page.render(
        name=findings.name,
        summary=summary(findings),
        bars=[(text, count, count / max(1, max(number for _, number in bars))) for text, count in bars],
        sections=[(title, note, list(rows)) for title, note, rows in sections],
        unreadable=list(findings.unreadable.values())[:200],
    )
    with create_file(path, overwrite) as temporary:
        temporary.write_text(as_text(html), encoding="utf-8")


class _Pictures:
    """Pictures with captions of what the findings name by row."""

    def __init__(self, findings: Findings, reader: Reader) -> None:
        self._findings, self._reader = findings, reader
        self._names = getattr(reader, "class_names", None)

    def group(self, rows: np.ndarray, most: int = OF_A_GROUP) -> list[dict[str, Any]]:
        return self._pictures(rows[:most].tolist())

    def pair(self, first: int, second: int, cosine: float) -> list[dict[str, Any]]:
        rows = [np.flatnonzero(self._findings.labels == label)[: OF_A_GROUP // 2] for label in (first, second)]
        pictures = self._pictures(np.concatenate(rows).tolist())
        return [picture | {"note": f"cosine {cosine:.2f}"} for picture in pictures]

    def _pictures(self, rows: Iterable[int]) -> list[dict[str, Any]]:
        found = []
        for row in rows:
            label = int(self._findings.labels[row])
            name = self._names[label] if self._names is not None else f"identity {label}"
            try:
                source = jpeg_uri(decode(self._reader.read([row])[0]))
            except InputError:
                source = ""
            found.append({"source": source, "name": name, "key": self._findings.keys[row], "note": ""})
        return found
