"""The images that a text list names: where they lie, and how far the list may lead. For `lists`, `verification_list`.

Images are looked for in the folder of the list, in the folders beside it, and one level above, where published sets
keep them beside the folder of their lists. The first image decides; all others lie below the same folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from marginface.errors import InputError
from marginface.readers.containment import Bounds, is_possible
from marginface.readers.image_walk import find_files
from marginface.readers.mapped import read_file


class ListedImages:
    """Images by their number in a list.

    Raises InputError, naming list and image, where the first image is nowhere, and for a name that leads out of the
    folder of the images (`..`, an absolute path, a symbolic link), unless `allow_outside`.
    """

    def __init__(self, path: Path, names: Sequence[str], allow_outside: bool = False) -> None:
        self.path, self._names = path, names
        near = nearby(path, allow_outside)
        root = find_root(path, names[0], near)
        if root is None:
            raise InputError(
                f"{path}: its first image, {names[0]!r:.200}, lies neither in {' nor in '.join(near.folders)} nor in a"
                f" folder there; put the list beside the folder of images, and name them relative to it."
            )
        self.root = root
        self._blame(0, near, self.root)
        self._bounds = Bounds(self.root, allow_outside=allow_outside)
        seen = set()
        for index, name in enumerate(names):
            folder = os.path.dirname(name)
            if folder not in seen:
                seen.add(folder)
                self._blame(index, self._bounds, self.root / folder)

    def read(self, index: int) -> bytes:
        """The encoded image. Raises InputError if it cannot be read, or is a link that leads out."""
        file = os.fspath(self.root / self._names[index])
        try:
            self._bounds.check_link(file)
            return read_file(file)
        except InputError as error:
            raise InputError(f"{self.path}: image {index}, {error}") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{self.path}: image {index}, {file}, cannot be read: {reason}.") from error

    def _blame(self, index: int, bounds: Bounds, place: Path) -> None:
        try:
            bounds.check(place)
        except InputError as error:
            raise InputError(f"{self.path}: image {index}, {self._names[index]}: {error}") from error


def nearby(path: Path, allow_outside: bool = False) -> Bounds:
    """The folder of a list and the one above, unless that is the home folder or holds it."""
    above = path.parent.parent
    private = Path("~").expanduser().resolve().is_relative_to(above.resolve()) and not allow_outside
    return Bounds(path.parent, *([] if private else [above]), allow_outside=allow_outside)


def find_root(path: Path, first: str, near: Bounds) -> Path | None:
    """The folder below which the images lie, found by the first of them; None if that is nowhere."""
    folders = [path.parent, path.parent.parent][: len(near.folders)]
    candidates = [*folders, *(child for folder in folders for child in find_files(folder, "*") if child.is_dir())]
    found = (candidate for candidate in candidates if is_possible(first) and os.path.isfile(candidate / first))
    return next(found, None)
