"""A checkpoint is whole, an earlier one survives a failure, and nothing foreign is unpickled."""

import contextlib
import os
import pickle
from pathlib import Path

import pytest
import torch

from marginface.errors import InputError
from marginface.training import checkpoint


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save_checkpoint(tmp_path / "last.pt", {"step": 3, "backbone": {"w": torch.arange(4)}})
    state = checkpoint.load_checkpoint(tmp_path / "last.pt")
    assert state["step"] == 3
    assert state["backbone"]["w"].tolist() == [0, 1, 2, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    path = tmp_path / "last.pt"
    checkpoint.save_checkpoint(path, {"step": 1})
    monkeypatch.setattr(checkpoint, "replace_file", lambda _: contextlib.nullcontext(Path("/dev/full")))
    with pytest.raises(InputError, match="the disk is full; the earlier checkpoint there is intact"):
        checkpoint.save_checkpoint(path, {"step": 2, "w": torch.zeros(1 << 20)})
    assert checkpoint.load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InputError, match="could not be saved"):
        checkpoint.save_checkpoint(tmp_path / "checkpoints" / "last.pt", {"step": 1})


@pytest.mark.parametrize("content", [b"", b"<html>Quota exceeded</html>", b"PK\x03\x04" + bytes(40)])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"last\.pt"):
        checkpoint.load_checkpoint(tmp_path / "last.pt")


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save_checkpoint(path, {"step": 1, "w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"last\.pt is damaged"):
        checkpoint.load_checkpoint(path)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"step": 1, "x": Evil()}, tmp_path / "last.pt", pickle_module=pickle)
    with pytest.raises(InputError, match="damaged or not a checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "pwned").exists()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        checkpoint.load_checkpoint(tmp_path / "last.pt")
