"""Files and folders that are whole or absent, and what may be replaced: nothing that we did not write. Floor 0.

`create_file` and `replace_folder` are for outputs that a user names, `replace_file` for files inside our own folders,
`naming` for files that grow.
"""

import contextlib
import ctypes
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from marginface.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where folders that were left stay
    fcntl = None  # type: ignore[assignment]

MARKER = ".marginface"
HEADER = "marginface folder 1"
LARGEST_MARKER = 1 << 26  # bytes
ROOM = 1 << 16  # bytes
JUST_MADE = 60.0  # seconds in which a folder may not be locked yet
PAGE = b'<meta name="generator" content="marginface">'  # in the first lines of every HTML page that marginface writes

Name = str | os.PathLike[str]


@contextlib.contextmanager
def create_file(
    path: Name, overwrite: bool = False, reads: Sequence[Name] = (), suffix: str = ".tmp"
) -> Iterator[Path]:
    """`replace_file` under the rule of `check_file`: for a file that a user names."""
    check_file(path, overwrite, reads)
    with replace_file(path, suffix=suffix) as temporary:
        yield temporary
        check_file(path, overwrite, reads)  # somebody may have put something there meanwhile


@contextlib.contextmanager
def replace_file(path: Name, durable: bool = True, suffix: str = ".tmp") -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it becomes `path`, on any error it is removed.

    durable: wait until the disk has it; not worth it for one of thousands of files that can be made again.
    suffix: of the temporary name.

    >>> with replace_file("metrics.json") as temporary:  # doctest: +SKIP
    ...     temporary.write_text("{}")
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming(target):
        handle, name = tempfile.mkstemp(prefix=_hidden(target), suffix=suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            if durable:
                sync(temporary)
            temporary.chmod(0o666 & ~umask())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    if durable:
        sync(target.parent)


@contextlib.contextmanager
def create_folder(path: Name) -> Iterator[Path]:
    """Like `create_file` for a folder, such as a data set, that is new or empty and never replaced."""
    with _staged(path, lambda: check_folder(path)) as temporary:
        yield temporary


@contextlib.contextmanager
def replace_folder(path: Name, overwrite: bool = False, reads: Sequence[Name] = ()) -> Iterator[Path]:
    """`create_folder` for what may be replaced under the rule of `check_folder`; leaves a MARKER that lists its files.

    The folder at `path` gives way only once the new one is whole, in one step where the system can exchange two names.
    """
    with _staged(path, lambda: check_folder(path, overwrite, reads)) as temporary:
        yield temporary
        lines = [HEADER, *sorted(_files_below(temporary)), ""]
        (temporary / MARKER).write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def _staged(path: Name, check: Callable[[], None]) -> Iterator[Path]:
    """A temporary folder that becomes `path` if `check` allows it, before the work and again at its end."""
    check()
    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), temporary_folder(target) as temporary:
        yield temporary
        for name in _files_below(temporary):
            sync(temporary / name)
        temporary.chmod(0o777 & ~umask())
        check()
        _put(temporary, target)
    sync(target.parent)


@contextlib.contextmanager
def temporary_folder(beside: Path | None = None) -> Iterator[Path]:
    """A folder that is removed at the end, unless it was renamed; so are those that killed processes left.

    beside: what the folder is to become; None for one among the system's temporary files. Its lock ends with the
    process, however that ends, by which a folder that was left is known.
    """
    parent = Path(tempfile.gettempdir()) if beside is None else beside.parent
    prefix = "marginface-" if beside is None else f"{_hidden(beside)}marginface-"
    _sweep(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=parent))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _sweep(parent: Path, prefix: str) -> None:
    """Removes folders that `temporary_folder` made and no process holds any more."""
    name = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}\.tmp")
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not name.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            found = entry.stat(follow_symlinks=False)
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < JUST_MADE:
                continue
            if (lock := _lock(entry.path)) is not None:
                shutil.rmtree(entry.path, ignore_errors=True)
                os.close(lock)


def _lock(folder: Name) -> int | None:
    """A descriptor that keeps the folder locked; None where another has it, or the system has no such locks."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def check_file(path: Name, overwrite: bool = False, reads: Sequence[Name] = (), within: Sequence[Name] = ()) -> None:
    """Raise InputError unless a file may be written at `path`; call it before the work that fills the file.

    A file that exists is replaced only with `overwrite`, or as an HTML page that marginface wrote, and not when it is
    one of `reads`, lies in a data set of `within`, or is part of a folder that `replace_folder` wrote. Symbolic links,
    devices and folders are never replaced.
    """
    target = Path(path)
    _check_place(target)
    if target.is_dir() or not target.name:
        raise InputError(f"{target} is a folder; give the name of a file")
    if not target.exists():
        return
    if not target.is_file():
        raise InputError(f"{target} is not a regular file; give the name of a file")
    if not overwrite and not _is_page(target):
        raise InputError(f"{target} exists already; give another name, or replace it with --overwrite")
    if target.resolve() in [Path(read).resolve() for read in reads] or any(_holds(data, target) for data in within):
        raise InputError(f"{target} would replace what is read; give another name")
    for folder in target.absolute().parents:
        if str(target.absolute().relative_to(folder)) in (_written(folder) or ()):
            raise InputError(f"{target} is part of what marginface wrote to {folder}; give another name")


def _holds(data: Name, target: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a long list of URLs is no path
        return target.resolve().is_relative_to(Path(data).resolve())
    return False


def check_files(
    paths: Iterable[Name | None], overwrite: bool = False, reads: Sequence[Name] = (), within: Sequence[Name] = ()
) -> None:
    """`check_file` for all outputs of one command, without those left out; no two may be the same file."""
    given = [Path(path) for path in paths if path]
    for number, path in enumerate(given):
        check_file(path, overwrite, reads, within)
        if path.resolve() in [other.resolve() for other in given[:number]]:
            raise InputError(f"{path} is given for two outputs; give each a name of its own")


def check_folder(path: Name, overwrite: bool = False, reads: Sequence[Name] = ()) -> None:
    """Raise InputError unless a folder may be written at `path`; call it before the work that fills the folder.

    A new or empty folder may. One that `replace_folder` wrote is replaced only with `overwrite`, not when it holds a
    file that was put there since, and not when it is one of `reads`, lies in one or holds one. Any other folder is
    never replaced, nor is a symbolic link.
    """
    target = Path(path)
    _check_place(target)
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; give a folder")
    if Path.cwd().is_relative_to(target.resolve()) or target.is_mount():
        raise InputError(f"{target} is the current folder, holds it, or is a mount point; give a folder inside it")
    if not target.exists() or not any(target.iterdir()):
        return
    written = _written(target)
    if written is None:
        why = "; --overwrite replaces only a model or an export of marginface's" if overwrite else ""
        raise InputError(f"{target} exists already and is not empty: give another folder{why}")
    if foreign := sorted(set(_files_below(target)) - written):
        raise InputError(
            f"{target / foreign[0]} was not written by marginface ({len(foreign)} such files in {target}); "
            f"move it elsewhere, or give another folder"
        )
    if not overwrite:
        raise InputError(f"{target} exists already; give another folder, or replace it with --overwrite")
    there = target.resolve()
    for source in map(Path, filter(os.path.exists, reads)):  # not Path.exists: a long list of URLs is no error
        if there.is_relative_to(source.resolve()) or source.resolve().is_relative_to(there):
            raise InputError(f"{target} would replace what is read from {source}; give another folder")


def check_apart(output: Name, source: Name) -> None:
    """Raise InputError when `output` is the folder `source` or lies in it, as new files would become part of it."""
    if Path(source).is_dir() and Path(output).resolve().is_relative_to(Path(source).resolve()):
        raise InputError(f"{output} lies in {source}, which is read; give a folder outside of it")


def _check_place(target: Path) -> None:
    """Neither a symbolic link, nor below something that is not a folder or must not be written to."""
    if "\0" in str(target):
        raise InputError(f"{str(target)!r} is no name of a file; give one without a null character")
    if target.is_symlink():
        raise InputError(f"{target} is a symbolic link; give what it points to: {target.readlink()}")
    parent = next((parent for parent in target.absolute().parents if parent.exists()), target)
    if not parent.is_dir():
        raise InputError(f"{target} cannot be written: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{target} cannot be written: you may not write to {parent}")


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix.lower() in (".html", ".htm") and PAGE in file.read(1000)


def _written(folder: Path) -> set[str] | None:
    """The files that `replace_folder` put into `folder`, and its MARKER; None where there is no such marker."""
    marker = folder / MARKER
    if marker.is_symlink() or not marker.is_file() or marker.stat().st_size > LARGEST_MARKER:
        return None
    header, *names = marker.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    return {*names, MARKER} if header == HEADER else None


def _files_below(folder: Path) -> Iterator[str]:
    """Everything below `folder` but folders, relative to it; symbolic links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from (f"{entry.name}/{name}" for name in _files_below(folder / entry.name))
            else:
                yield entry.name


def _put(new: Path, target: Path) -> None:
    """Move `new` to `target`; what was there is removed, or stays where the move fails."""
    if not target.exists() or not any(target.iterdir()):
        new.replace(target)
    elif not _exchange(new, target):
        aside = Path(tempfile.mkdtemp(prefix=f"{target.name[:50]}.old-", dir=target.parent))
        target.replace(aside)
        try:
            new.replace(target)
        except BaseException:
            aside.replace(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _hidden(target: Path) -> str:
    """How the names of temporary files begin that are to become `target`."""
    return f".{target.name[:50]}."


@contextlib.contextmanager
def naming(target: Name) -> Iterator[None]:
    """Within, an OSError that names no file, such as of a full disk, or a temporary one of `target`, names `target`."""
    try:
        yield
    except OSError as error:
        hidden = f"{Path(target).absolute().parent / _hidden(Path(target))}"
        named = error.filename and str(Path(str(error.filename)).absolute())
        if error.errno is not None and (not named or named.startswith(hidden)):
            error.filename = str(target)
        raise


def check_room(path: Path) -> None:
    """Raise OSError where a file takes no more: for what a library wrote that does not tell when the disk is full."""
    size = path.stat().st_size
    with path.open("ab", buffering=0) as file:
        if file.write(bytes(ROOM)) < ROOM:
            file.write(b"\0")  # which says why
        file.truncate(size)


def sync(path: Path) -> None:
    """Asks the disk to keep it; folders cannot be synced on every system, so a refusal there is no fault."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
