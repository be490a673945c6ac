"""WebDataset shards on servers and in object storage: brought to this machine once. Opened by `open_reader`.

Random access, exact resuming and any sampling then work as with every other set. webdataset knows how to fetch.
"""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rich.console import Console

from marginface.errors import InputError
from marginface.files import replace_file
from marginface.optional_imports import load_library
from marginface.readers.archive_index import BLOCK, is_tar
from marginface.readers.containment import Bounds
from marginface.readers.shards import ShardsReader
from marginface.readers.sidecar import cache_folder
from marginface.terminal import print_line
from marginface.untrusted import read_head, read_lines

SAFE = re.compile(r"(https?:[\w.~:/?#@&+,=%-]+|[\w.~:/?#@+,=%-]+)", re.ASCII | re.IGNORECASE)
"""URLs that a file may name: the programs that fetch them may be started through a shell, which knows other letters."""
REMOTE = re.compile(r"pipe:|[a-z][a-z0-9+]+://", re.IGNORECASE)
URL = re.compile(r"(?!pipe:)[a-z][a-z0-9+]+://", re.IGNORECASE)
RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
MOST_SHARDS = 1_000_000
AT_ONCE = 4  # downloads


def is_remote(spec: str) -> bool:
    """Whether it is a URL, or `pipe:` and a command that writes a shard, rather than a path."""
    return REMOTE.match(spec) is not None


def is_url_list(path: Path) -> bool:
    """Whether the first line of a text file is a URL."""
    return is_remote(read_head(path, 64).lstrip())


def is_command(spec: str) -> bool:
    """Whether opening this would run a command: one of several sources is no URL, also when braces are expanded."""
    return is_remote(spec) and not all(URL.match(part) for part in spec.split("::"))


def open_remote(spec: str) -> ShardsReader:
    """Shards at URLs such as https://host/train-{000000..000099}.tar, several separated by `::`."""
    expand = load_library("webdataset.shardlists", f"{spec}: reading this format").expand_urls
    return ShardsReader(Path(spec), brought(expand(spec), spec))


def is_pattern(spec: str) -> bool:
    """Whether it names several shards of this machine, such as train-{000000..000002}.tar."""
    return RANGE.search(spec) is not None


def open_pattern(spec: str, allow_outside: bool = False) -> ShardsReader:
    """Shards of this machine by numbers in braces. Raises InputError naming the first that is missing."""
    match = RANGE.search(spec)
    assert match is not None
    first, last = match[1], match[2]
    if not 0 <= int(last) - int(first) < MOST_SHARDS:
        raise InputError(f"{spec}: {match[0]} should count upwards, and to no more than {MOST_SHARDS:,} shards.")
    names = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    files = [Path(f"{spec[: match.start()]}{name}{spec[match.end() :]}") for name in names]
    Bounds(*files[:1], allow_outside=allow_outside).check_all(files)
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file, which {spec} names; correct the numbers in braces.")
        if not is_tar(file):
            raise InputError(f"{file}: is no tar file that is not compressed, as shards are.")
    return ShardsReader(Path(spec), files)


def open_url_list(path: Path, allow_outside: bool = False) -> ShardsReader:
    """Shards at the URLs of a text file, one per line. Files of this machine only with `allow_outside`."""
    urls = [line.strip() for line in read_lines(path, errors="replace") if line.strip()]
    for number, url in enumerate(urls, start=1):
        if not is_remote(url):
            raise InputError(f"{path}: line {number} is no URL: {url!r:.100}.")
        if is_command(url):
            raise InputError(f"{path}: line {number} is a command; a file must not run any, give it to the option.")
        if not SAFE.fullmatch(url):
            raise InputError(
                f"{path}: line {number} holds letters that are none of a URL's: {url!r:.100}; escape them as %20."
            )
        if url.lower().startswith("file:") and not allow_outside:
            raise InputError(f"{path}: line {number} is a file of this machine; read it with --allow-outside.")
    load_library("webdataset", f"{path}: reading this format")
    return ShardsReader(path, brought(urls, str(path)))


def brought(urls: list[str], spec: str) -> list[Path]:
    """Local copies of shards, in that order; those of an earlier run are taken as they are.

    Processes of one machine share the work: each shard is fetched by the first that comes to it.
    Raises InputError, naming the shard, if one cannot be fetched or is cut short.
    """
    folder = cache_folder() / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    if missing := [url for url in urls if not _place(folder, url).is_file()]:
        print_line(f"{spec}: bringing {len(missing)} of {len(urls)} shards to {folder}", Console(stderr=True))
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shards") as pool:
        try:
            for wait in (False, True):  # those that others are fetching come last
                list(pool.map(partial(_bring, folder, wait=wait), missing))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [_place(folder, url) for url in urls]


def _place(folder: Path, url: str) -> Path:
    name = re.sub(r"[^\w.-]", "_", url.rpartition("/")[2])[-80:]
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def _bring(folder: Path, url: str, wait: bool) -> None:
    target = _place(folder, url)
    with _locked(target, wait) as locked:
        if not locked or target.is_file():
            return
        with replace_file(target) as temporary:
            _download(url, temporary)
            if not is_tar(temporary):
                raise InputError(f"{url}: is no tar file that is not compressed, as shards are.")
            if not _is_whole(temporary):
                raise InputError(f"{url}: was cut short; run the same command again to fetch what is missing.")


def _download(url: str, target: Path) -> None:
    gopen = load_library("webdataset.gopen", f"{url}: reading this format").gopen
    try:
        with target.open("wb") as file, contextlib.closing(gopen(url)) as stream:
            shutil.copyfileobj(stream, file, 1 << 20)
    except (OSError, ValueError) as error:
        raise InputError(f"{url}: cannot be fetched: {str(error).splitlines()[0]:.300}.") from error


def _is_whole(path: Path) -> bool:
    """Whether a tar file has the two empty blocks at its end, without which the connection may have broken."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2 * BLOCK))
        end = file.read()
    return len(end) == end.count(0) == 2 * BLOCK


@contextlib.contextmanager
def _locked(target: Path, wait: bool) -> Iterator[bool]:
    """Whether this process, and no other, may write `target`; the lock ends with the process."""
    import fcntl  # which Windows lacks, and only this needs

    with target.with_name(f".{target.name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
