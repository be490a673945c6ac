"""Whether a path that a stranger's file names stays in the folder that it may reach.

Symbolic links are followed before the decision. A hard link cannot be told from a file of the folder's own, and
whoever can change the folder between the check and the reading is not guarded against.
"""

import os
from collections.abc import Iterable

from marginface.errors import InputError

ALLOW_OUTSIDE = "also read files outside of the data set's folder that its symbolic links or lists lead to"
REMEDY = "copy it there, or read it with --allow-outside"
MOST_KNOWN = 4096  # folders that `Bounds` remembers
LONGEST, LONGEST_NAME = 4096, 255  # bytes of a path that a system opens, and of a name in it
NO_NAME = frozenset({"", os.curdir, os.pardir})

PathLike = str | os.PathLike[str]


class Bounds:
    """The folders that a data set may be read from; with `allow_outside`, any.

    places: folders, or files whose folders are meant. They may themselves be symbolic links: the user named them.

    The checks raise InputError, naming the link, its target and --allow-outside, for a path that leads out.
    """

    def __init__(self, *places: PathLike, allow_outside: bool = False) -> None:
        folders = [place if os.path.isdir(place) else os.path.dirname(os.fspath(place)) for place in places]
        self.folders = [os.path.realpath(folder or os.curdir) for folder in folders]
        self.allow_outside = allow_outside
        self._known: set[str] = set()

    def holds(self, path: PathLike) -> bool:
        """Whether `path`, all symbolic links followed, lies in one of the folders. Ignores `allow_outside`."""
        return is_possible(os.fspath(path)) and self._inside(os.path.realpath(path))

    def check(self, path: PathLike) -> None:
        """Refuse a path that leads out. Its folder is resolved once for the files in it."""
        if self.allow_outside:
            return
        folder, name = os.path.split(os.fspath(path))
        if name not in NO_NAME and (folder in self._known or self.holds(folder or os.curdir)):
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known.add(folder)
            self.check_link(path)
        else:
            self._resolve(path)

    def check_link(self, path: PathLike) -> None:
        """Refuse a symbolic link that leads out: all that is to be checked of a file whose folder has been."""
        if not self.allow_outside and os.path.islink(path):
            self._resolve(path)

    def check_all(self, paths: Iterable[PathLike]) -> None:
        """`check` of many files: lists each folder instead of looking at each file."""
        if self.allow_outside:
            return
        folders: dict[str, set[str]] = {}
        for path in paths:
            folder, name = os.path.split(os.fspath(path))
            folders.setdefault(folder, set()).add(name)
        for folder, names in folders.items():
            self._resolve(folder)
            for name in names & NO_NAME:
                self._resolve(os.path.join(folder, name))
            if os.path.isdir(folder or os.curdir):
                with os.scandir(folder or os.curdir) as entries:
                    for entry in entries:
                        if entry.is_symlink() and entry.name in names:
                            self._resolve(os.path.join(folder, entry.name))

    def _resolve(self, path: PathLike) -> None:
        name = os.fspath(path) or os.curdir
        if self.holds(name):
            return
        if not is_possible(name):
            raise InputError(f"{name!r:.200}: no file can have such a name; correct it.")
        if link := self._way_out(name):
            real = os.path.realpath(link)
            raise InputError(f"{link}: is a symbolic link to {real}, outside of {self.folders[0]}; {REMEDY}.")
        raise InputError(f"{name}: lies outside of {self.folders[0]}; {REMEDY}.")

    def _inside(self, real: str) -> bool:
        return any(real == folder or real.startswith(folder.rstrip(os.sep) + os.sep) for folder in self.folders)

    def _way_out(self, path: str) -> str:
        """The symbolic link on the way to `path` that leaves the folders; "" where no link is to blame."""
        real = os.path.realpath(os.sep if os.path.isabs(path) else os.curdir)
        ends = [end for end, letter in enumerate(path) if letter == os.sep and end] + [len(path)]
        for start, end in zip([0, *ends], ends, strict=False):
            step = os.path.normpath(os.path.join(real, path[start:end].strip(os.sep)))
            if os.path.islink(step):
                target = os.path.realpath(step)
                if self._inside(real) and not self._inside(target):
                    return path[:end]
                step = target
            real = step
        return ""


def is_possible(path: str) -> bool:
    """Whether a file can have this path: neither it nor a name in it is too long, and the system can spell it."""
    try:
        spelt = os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return b"\0" not in spelt and len(spelt) <= LONGEST and max(map(len, spelt.split(b"/"))) <= LONGEST_NAME
