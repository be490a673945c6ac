"""A saved state is whole, an earlier one survives any failure, and nothing foreign is unpickled."""

import errno
import io
import os
import pickle
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from marginface.errors import InputError
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
    with pytest.raises(InputError, match="it holds no other"):
        saved.read({"other": torch.zeros(1)})


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10, 12):
        save(tmp_path, step)
    forget_states(tmp_path, 10, 2)
    assert [path.name for path in list_states(tmp_path)] == ["state-12", "state-10", "state-4"]


def test_one_that_is_not_complete_does_not_count(tmp_path: Path) -> None:
    """As a process leaves them that is killed while it saves."""
    whole, _ = save(tmp_path, 3)
    shutil.copytree(whole, tmp_path / ".state-4.tmp")
    shutil.copytree(whole, tmp_path / "state-5", ignore=shutil.ignore_patterns("state.json"))
    assert list_states(tmp_path) == [whole]
    again, _ = save(tmp_path, 4)  # over what was left
    assert list_states(tmp_path) == [again, whole]
    assert SavedState.open(again).facts["step"] == 4


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses every byte beyond: what a full disk and a quota are to a program."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


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

    monkeypatch.setattr(torch, "save", refuse)  # what torch.distributed.checkpoint writes with
    with pytest.raises(InputError, match=f"could not be saved: {words}"):
        save(tmp_path, 3)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InputError, match="could not be saved"):
        save(tmp_path / "checkpoints", 3)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "state.json"])
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


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_code_in_the_index_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = save(tmp_path, 3)
    (path / ".metadata").write_bytes(pickle.dumps(Evil(str(tmp_path / "pwned"))))
    with pytest.raises(InputError, match=r"\.metadata is damaged or not a checkpoint's .*mkdir"):
        state.read_metadata(path)
    assert not (tmp_path / "pwned").exists()


class ByName:
    """Pickled as Python before 3.11.4 pickles a member of an enumeration, or as code that fetches an attribute."""

    def __init__(self, kind: Any, name: str) -> None:
        self.kind, self.name = kind, name

    def __reduce__(self) -> tuple[Any, tuple[Any, str]]:
        return getattr, (self.kind, self.name)


def test_members_by_name_and_no_other_attribute() -> None:
    kind = torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING
    found = state._KnownNames(io.BytesIO(pickle.dumps(ByName(kind, "TORCH_CHANNELS_LAST")))).load()
    assert found is kind.TORCH_CHANNELS_LAST
    for other in (ByName(kind, "__class__"), ByName(torch.Size, "count")):
        with pytest.raises(pickle.UnpicklingError, match="it asks"):
            state._KnownNames(io.BytesIO(pickle.dumps(other))).load()


def test_code_beside_the_tensors_is_not_run(tmp_path: Path) -> None:
    """torch unpickles whatever its index does not call a tensor."""
    writer = state._Writer(tmp_path / "foreign")
    torch.distributed.checkpoint.save({"x": Evil(str(tmp_path / "pwned"))}, storage_writer=writer)
    with pytest.raises(InputError, match="something other than tensors"):
        state.read_metadata(tmp_path / "foreign")
    assert not (tmp_path / "pwned").exists()
