"""The published checkpoints we know of: a table in `zoo.yaml`, and whether a file at hand is one of them."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from marginface.weights.base import ImportedModel

ROWS = Path(__file__).with_name("zoo.yaml")
CLASSES = {
    "CASIA-WebFace": 10_572,
    "VGGFace2": 9_131,
    "MS1MV2": 85_742,
    "MS1MV3": 93_431,
    "Glint360K": 360_232,
    "WebFace4M": 205_990,
    "WebFace12M": 617_970,
    "WebFace42M": 2_059_906,
}
# what those who hand out the data set allow; a licence of the weights cannot allow more
TERMS = {
    "CASIA-WebFace": "non-commercial research, by agreement",
    "VGGFace2": "non-commercial (CC BY-NC 4.0 where it is still handed out)",
    "MS1MV2": "non-commercial research; made of MS-Celeb-1M, which its makers withdrew",
    "MS1MV3": "non-commercial research; made of MS-Celeb-1M, which its makers withdrew",
    "Glint360K": "non-commercial research; made of MS-Celeb-1M among others, which its makers withdrew",
    "WebFace4M": "academic research only, by agreement",
    "WebFace12M": "academic research only, by agreement",
    "WebFace42M": "academic research only, by agreement",
    "your own": "yours to say",
}
ADAFACE_SUBSET = 70_722  # what AdaFace's MS1MV2 subset leaves


@dataclass(frozen=True)
class Row:
    """One published checkpoint.

    project: who publishes it. source: the importer, None where there is none: `why` then says what is in the way.
    backbone: ours. trained_on: data set, one of TERMS. loss: as its authors call it. licence: of the weights, as they
    state it.
    where: link to the file, or to the page that has it. file: what it is called there.
    figures: what the authors report, in percent; TAR at FAR 1e-4 for IJB-B and IJB-C.
    """

    name: str
    project: str
    source: str | None
    backbone: str
    trained_on: str
    loss: str
    licence: str
    where: str
    file: str
    why: str = ""
    num_features: int = 512
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def data_terms(self) -> str:
        """What the training set may be used for."""
        return TERMS[self.trained_on]

    @property
    def command(self) -> str:
        """The command that imports it, once the file is here."""
        if self.source is None:
            return f"- ({self.why})"
        # a bare state dict says nothing of colours: InsightFace's are the rule, others are told
        return f"marginface import {self.file} -o models/{self.name}"


@cache
def rows() -> tuple[Row, ...]:
    """All of them, in the order of the table."""
    content: list[dict[str, Any]] = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    return tuple(Row(**{**group["of_all"], **row}) for group in content for row in group["rows"])


def candidates(model: ImportedModel) -> list[Row]:
    """Rows whose importer, backbone and number of features are the file's, and whose training set has as many
    people as its class weights, where it brings them. Several rows differ in their numbers only."""
    people = None if model.head is None else len(model.head)
    return [
        row
        for row in rows()
        if (row.source, row.backbone, row.num_features) == (model.source, name_of(model), model.num_features)
        and (people is None or people in _people(row))
    ]


def name_of(model: ImportedModel) -> str:
    """The backbone's name with "-se" where squeeze-and-excitation is an option of it."""
    return f"{model.backbone}-se" if model.options.get("se") else model.backbone


def _people(row: Row) -> set[int]:
    counts = {CLASSES[row.trained_on]} if row.trained_on in CLASSES else set()
    return counts | ({ADAFACE_SUBSET} if row.source == "adaface" and row.trained_on == "MS1MV2" else set())
