"""The file that a training writes after every epoch, so that it can go on after a kill."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from autocut.errors import StudyError

_UNREADABLE = (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state`. The file is always either the old or the new one, even if the process dies."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """Return the state that `path` holds, on the CPU; None where there is no file.

    Raises:
        StudyError: it cannot be read, or its training had another `identity`: other settings, data or seed.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state["identity"]
    except _UNREADABLE as error:
        raise StudyError(f"the checkpoint {path.name} cannot be read: {error}", f"delete {path}") from error
    if found != identity:
        raise StudyError(f"the checkpoint {path.name} was written for other settings: {found}", f"delete {path}")
    return state


def epochs_in(checkpoint: Path) -> int:
    """Return how many epochs `checkpoint` holds: 0 where there is none, or where it cannot be read."""
    try:
        return len(torch.load(checkpoint, map_location="cpu", weights_only=True)["history"])
    except _UNREADABLE:
        return 0
