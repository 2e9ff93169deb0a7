"""The user's part: a model, its data splits, its loss and metric; and the checks that find its faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocut.task.task import Task

__all__ = ["Task"]


def __getattr__(name: str) -> Any:
    """Import torch only when a name needs it: looking at a task file's syntax does not."""
    if name == "Task":
        from autocut.task.task import Task

        return Task
    raise AttributeError(f"module 'autocut.task' has no attribute {name!r}")
