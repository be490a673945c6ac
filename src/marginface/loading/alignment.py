"""How the faces of a data set were aligned: the note that `align` leaves in it, and whether it suits a model."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.faces.template import face_shape, template
from marginface.files import replace_file
from marginface.readers.containment import Bounds, is_possible
from marginface.untrusted import read_json

NOTE = ".alignment.json"
LARGEST_NOTE = 4096  # bytes
TOLERANCE = 0.005  # of a face's side


@dataclass(frozen=True)
class Alignment:
    """Where the five points lie: template, one of `faces.template.TEMPLATES`, in faces of `size` pixels' height.

    Raises InputError for an unknown template or a size that it does not have.
    """

    template: str = "arcface"
    size: int = 112

    def __post_init__(self) -> None:
        if type(self.template) is not str or type(self.size) is not int:
            raise InputError(f"template {self.template!r:.60}, size {self.size!r:.60}: give a name and pixels")
        face_shape(self.size, self.template)

    def __str__(self) -> str:
        return f"the template {self.template} at {self.size} pixels"

    def places(self) -> np.ndarray:
        """x, y of the points from the middle of the face, as shares of its shorter side: float64 (5, 2)."""
        height, width = face_shape(self.size, self.template)
        return (template(self.size, self.template) - [width / 2, height / 2]) / min(height, width)

    def suits(self, other: "Alignment") -> bool:
        """Whether faces of one, scaled, are those of the other."""
        return bool(np.abs(self.places() - other.places()).max() < TOLERANCE)


def write_alignment(folder: Path, alignment: Alignment) -> None:
    """Leave the note in the folder of a data set."""
    with replace_file(folder / NOTE) as temporary:
        temporary.write_text(json.dumps(asdict(alignment)) + "\n", encoding="utf-8")


def read_alignment(place: str | Path, allow_outside: bool = False) -> Alignment | None:
    """What the note says of a data set, which is a folder or a file in one; None where there is no note.

    Raises InputError for a note that `write_alignment` did not write, and for a symbolic link that leads out of the
    folder, unless `allow_outside`.
    """
    path = Path(place)
    if not is_possible(str(path)):
        return None
    note = (path if path.is_dir() else path.parent) / NOTE
    if not note.is_file():
        return None
    Bounds(note.parent, allow_outside=allow_outside).check(note)
    try:
        said = read_json(note, LARGEST_NOTE)
        if not isinstance(said, dict) or said.keys() != {"template", "size"}:
            raise InputError("it does not hold template and size alone")
        return Alignment(**said)
    except (OSError, ValueError) as error:  # InputError is one
        raise InputError(
            f"{note} is no note of how faces were aligned ({error!s:.200}); remove it, or align them again"
        ) from error


def describe_mismatch(name: str, found: Alignment | None, wanted: str, size: int) -> str:
    """A sentence where the faces of the set `name` are aligned otherwise than a model takes them; else "".

    wanted, size: the model's template and height. Nothing is said of sets without a note.
    """
    if found is None or found.suits(model := Alignment(wanted, size)):
        return ""
    return (
        f"{name}: its faces are aligned to {found}, the model takes {model}, which costs accuracy; align the "
        f"photographs with --template {model.template} --size {model.size}"
    )
