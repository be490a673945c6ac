"""A tiny network and people for tests of the commands that evaluate."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from marginface import cli
from marginface.embedder import Embedder, ModelConfig
from marginface.readers.bin_writer import write_bin
from people import write_people


def save_model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    Embedder.create(ModelConfig("small", 16, {"width": 4})).save(folder)
    return folder


def write_stored(path: Path, people: Path, pairs: int = 20) -> Path:
    """A .bin of alternating same and different pairs."""
    own = [sorted(folder.iterdir()) for folder in sorted(people.iterdir()) if folder.is_dir()]
    images, issame = [], []
    for pair in range(pairs):
        one = own[pair % len(own)]
        other = one if pair % 2 == 0 else own[(pair + 1) % len(own)]
        images += [one[pair % 3].read_bytes(), other[3].read_bytes()]
        issame.append(pair % 2 == 0)
    write_bin(path, images, torch.tensor(issame).numpy())
    return path


def refused(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says when it ends with exit code 2, in one line."""
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.split())


def run_apart(words: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "marginface", *words], cwd=folder, stderr=subprocess.PIPE)


__all__ = ["refused", "run_apart", "save_model", "write_people", "write_stored"]
