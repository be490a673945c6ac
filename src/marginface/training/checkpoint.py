"""Save and restore everything a run needs to go on exactly: whole or absent, read with weights_only."""

import errno
import pickle
from pathlib import Path
from typing import Any

import torch

from marginface.errors import InputError
from marginface.files import replace_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes to a temporary name, then renames: an earlier checkpoint at `path` survives any failure.

    Raises InputError when the disk is full or not writable.
    """
    try:
        # through a file of ours: torch's own writer hides the reason of a failed write
        with replace_file(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except OSError as error:
        kept = "; the earlier checkpoint there is intact" if path.exists() else ""
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise InputError(f"{path} could not be saved: {reason}{kept}; make room and resume") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU. Raises InputError when missing, damaged or not a checkpoint."""
    if not path.is_file():
        raise InputError(
            f"{path} is missing: the run stopped before its first checkpoint or had another number of processes"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or ["it ends too early"])[0]
        raise InputError(f"{path} is damaged or not a checkpoint ({reason})") from error
    if not isinstance(state, dict) or "step" not in state:
        raise InputError(f"{path} is not a checkpoint of a run: it holds no step")
    return state


def restore(module: torch.nn.Module, state: dict[str, Any], what: str, path: Path) -> None:
    """Loads a module's state strictly. Raises InputError naming the first key that differs."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"{path} holds another {what} than the configuration names: {reason}") from error
