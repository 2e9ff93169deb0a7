"""Loads the task that a task file defines, or the embedded digits task."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autocut.counting import format_count
from autocut.errors import TaskError
from autocut.task.file import TaskFile, import_task_file, take_over_path
from autocut.task.task import Task

_EMBEDDED = "autocut.tasks.digits"

_loaded: dict[Path, tuple[TaskFile, Task]] = {}


def load_task(path: str | Path | None) -> Task:
    """Load the task that the Python file `path` defines under the name ``task``; None loads the embedded digits task.

    Loading an unchanged file again in one process returns the same object, with its data.

    Raises:
        TaskError: the file cannot be imported, or does not define a task.
    """
    if path is None:
        module = importlib.import_module(_EMBEDDED)
        path = Path(str(module.__file__))
        return _attach(module.task, path, hashlib.sha256(path.read_bytes()).hexdigest(), [path])
    file = Path(path).expanduser().resolve()
    known = _loaded.get(file)
    if known is not None and _is_unchanged(*known):
        take_over_path(file)  # another task or a new fork may have removed its folder from sys.path
        return known[1]
    imported = import_task_file(file)
    task = _attach(_find_task(vars(imported.module), file), file, imported.sha256(), (source for _, source in imported.files))
    _loaded[file] = (imported, task)
    return task


def _attach(task: Task, path: Path, sha256: str, files: Iterable[Path]) -> Task:
    object.__setattr__(task, "path", path)
    object.__setattr__(task, "source_sha256", sha256)
    object.__setattr__(task, "source_files", frozenset(files))
    return task


def _is_unchanged(imported: TaskFile, task: Task) -> bool:
    try:
        return imported.sha256() == task.source_sha256
    except OSError:
        return False


def _find_task(names: Mapping[str, Any], file: Path) -> Task:
    found = names.get("task")
    if isinstance(found, Task):
        return found
    if found is not None:
        raise TaskError(f"`task` must be an autocut.Task, got {type(found).__name__} ({file.name})", "task = autocut.Task(...)")
    others = [name for name, value in names.items() if isinstance(value, Task)]
    if not others:
        raise TaskError(f"a task file must define `task`, got none ({file.name})", "task = autocut.Task(...)")
    got = others[0] if len(others) == 1 else f"{format_count(len(others), 'task')} under other names: {', '.join(others)}"
    raise TaskError(f"a task file must name its task `task`, got {got} ({file.name})", f"task = {others[0]}")
