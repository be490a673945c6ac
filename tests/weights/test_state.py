"""A saved state is whole, reads into any other division of its rows, and an earlier one survives any failure."""

import errno
import math
import os
import shutil
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from bounded import largest_file
from marginface.errors import InputError
from marginface.tensor_file import DTYPES
from marginface.weights import state
from marginface.weights.parts import Part
from marginface.weights.state import SavedState, forget_states, list_states, write_state


def tensors() -> dict[str, Tensor | Part]:
    return {
        "backbone.w": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "backbone.count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(5).bfloat16(),
        "head.weight": Part(torch.randn(10, 3), 0, 10),
    }


def save(folder: Path, step: int) -> tuple[Path, dict[str, Tensor | Part]]:
    given = tensors()
    write_state(folder / f"state-{step}", given, {"step": step, "best": 0.1 + 0.2})
    return folder / f"state-{step}", given


def test_round_trip(tmp_path: Path) -> None:
    path, given = save(tmp_path, 3)
    saved = SavedState.open(path)
    assert saved.facts == {"step": 3, "best": 0.1 + 0.2}
    assert saved.shapes["head.weight"] == (10, 3)
    wanted = {
        "backbone.w": torch.zeros(4, 3, 2, 2),
        "backbone.count": torch.tensor(0),
        "half": torch.zeros(5).bfloat16(),
    }
    rows = Part(torch.zeros(4, 3), 5, 10)  # of another division of the classes
    saved.read(wanted | {"head.weight": rows})
    assert all(torch.equal(value, given[name]) for name, value in wanted.items())
    assert torch.equal(rows.rows, given["head.weight"].rows[5:9])
    with pytest.raises(InputError, match=r"does not fit: backbone.count is I64 there, F32 here"):
        saved.read({"backbone.count": torch.tensor(0.0)})
    with pytest.raises(InputError, match=r"does not fit: other is absent there, \(1,\) here"):
        saved.read({"other": torch.zeros(1)})


@st.composite
def divisions(draw: st.DrawFn, rows: int) -> list[int]:
    """Where the parts of `rows` rows begin and end, for 1 to 5 processes, of which some may have none."""
    return [0, *sorted(draw(st.lists(st.integers(0, rows), max_size=4))), rows]


@given(data=st.data(), rows=st.integers(1, 12))
def test_any_number_of_processes_reads_what_any_other_wrote(data: st.DataObject, rows: int) -> None:
    table, scalars = torch.randn(rows, 3), {f"s{n}": torch.tensor(float(n)) for n in range(3)}
    written, wanted = data.draw(divisions(rows)), data.draw(divisions(rows))
    with TemporaryDirectory() as name:
        temporary, folder = Path(name) / ".state-1.tmp", Path(name) / "state-1"
        temporary.mkdir()
        size = len(written) - 1
        files = [
            state._write(temporary, {"table": Part(table[first:end], first, rows), **scalars}, rank, size)
            for rank, (first, end) in enumerate(pairwise(written))
        ]
        state._finish(temporary, folder, files, {"step": 1})
        assert len(list(folder.glob("part-*"))) == size
        saved = SavedState.open(folder)
        assert saved.shapes == {"table": (rows, 3), **dict.fromkeys(scalars, ())}
        for first, end in pairwise(wanted):
            found, scalar = torch.full((end - first, 3), math.nan), torch.tensor(math.nan)
            saved.read({"table": Part(found, first, rows), "s1": scalar})
            assert torch.equal(found, table[first:end])
            assert scalar == 1


def test_files_are_safetensors(tmp_path: Path) -> None:
    path, given = save(tmp_path, 3)
    found = load_file(path / "part-0.safetensors")
    assert found.keys() == given.keys()
    for name, value in given.items():
        assert torch.equal(found[name], value.rows if isinstance(value, Part) else value)


def test_every_dtype(tmp_path: Path) -> None:
    given = {str(dtype): torch.tensor([0, 1, 3]).to(dtype) for dtype in DTYPES}
    write_state(tmp_path / "state-1", given, {})
    wanted = {name: torch.empty_like(value) for name, value in given.items()}
    SavedState.open(tmp_path / "state-1").read(wanted)
    assert all(torch.equal(wanted[name], value) for name, value in given.items())


def test_names_that_are_no_step(tmp_path: Path) -> None:
    whole, _ = save(tmp_path, 3)
    for name in ("state-²", "state-٣", "state--1", "state-" + "9" * 200, "state-5 "):
        shutil.copytree(whole, tmp_path / name)
    assert list_states(tmp_path) == [whole]


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10, 12):
        save(tmp_path, step)
    forget_states(tmp_path, 10, 2)
    assert [path.name for path in list_states(tmp_path)] == ["state-12", "state-10", "state-4"]


def test_files_of_others_in_a_state_stay(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save(tmp_path, step)
    (tmp_path / "state-2" / "thesis.tex").write_text("years")
    (tmp_path / "state-4" / ".state.json.x1_y.tmp").touch()  # left by a process that was killed
    forget_states(tmp_path, 6, 1)
    assert not (tmp_path / "state-4").exists()
    assert [path.name for path in (tmp_path / "state-2").iterdir()] == ["thesis.tex"]
    (tmp_path / "state-6" / "notes").mkdir()
    (tmp_path / "state-6" / "notes" / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match=r"state-6/notes was not written by marginface; move it elsewhere"):
        save(tmp_path, 6)
    assert (tmp_path / "state-6" / "notes" / "thesis.tex").read_text() == "years"
    assert list_states(tmp_path) == [tmp_path / "state-6"]
    assert not list(tmp_path.glob(".state-*"))


def test_one_that_is_not_complete_does_not_count(tmp_path: Path) -> None:
    """As a process leaves them that is killed while it saves."""
    whole, _ = save(tmp_path, 3)
    shutil.copytree(whole, tmp_path / ".state-4.tmp")
    shutil.copytree(whole, tmp_path / "state-5", ignore=shutil.ignore_patterns("state.json"))
    assert list_states(tmp_path) == [whole]
    again, _ = save(tmp_path, 4)  # over what was left
    assert list_states(tmp_path) == [again, whole]
    assert SavedState.open(again).facts["step"] == 4


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    path, _ = save(tmp_path, 3)
    with (
        largest_file(1 << 16),
        pytest.raises(InputError, match=r"state-4 could not be saved: File too large; earlier .* are intact"),
    ):
        write_state(tmp_path / "state-4", {"w": torch.zeros(1 << 20)}, {"step": 4})
    assert [file.name for file in tmp_path.iterdir()] == ["state-3"]
    assert SavedState.open(path).facts["step"] == 3


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the quota"), (errno.EROFS, "Read-only")]
)
def test_the_reason_is_said(number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError, match=f"could not be saved: {words}"):
        save(tmp_path, 3)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InputError, match="could not be saved"):
        save(tmp_path / "checkpoints", 3)


@pytest.mark.parametrize("name", ["part-0.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "empty"])
def test_damage_is_found_and_named(name: str, damage: str, tmp_path: Path) -> None:
    path, _ = save(tmp_path, 3)
    file = path / name
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    file.write_bytes({"flipped": content, "truncated": content[:-20], "empty": b""}.get(damage, content))
    if damage == "missing":
        file.unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        SavedState.open(path)
