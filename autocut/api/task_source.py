"""Finds the file that defines a `Task` object, because worker processes load the task from its file.

No torch here: a path is given back as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from autocut.api.command import noted
from autocut.errors import InputError, TaskError, quoted

if TYPE_CHECKING:
    from autocut.task.task import Task

_NAME = "task"
_HINT = "write it into task.py as `task = Task(...)`, and give the path: 'task.py' (in a notebook: %%writefile task.py)"
_LOADED = "autocut_task_"
"""The modules of task files have names that begin so (`task.file.module_name`)."""


def task_file(task: Task | str | Path | None) -> Path | None:
    """Return the file of a task; None for the embedded digits task.

    Raises:
        TaskError: No file defines this task under the name ``task``, or its file is being loaded right now.
    """
    try:
        return _find(task)
    except InputError as error:
        raise noted(error) from None


def _find(task: Task | str | Path | None) -> Path | None:
    _refuse_while_a_task_is_loaded()
    if task is None:
        return None
    if isinstance(task, str | Path):
        return Path(task)
    if type(task).__name__ != "Task":
        raise InputError(
            f"a task must be a path or an autocut.Task, got {type(task).__name__}", "autocut.search('task.py', budget='8h')"
        )
    if task.path is not None:
        return task.path
    for module in list(sys.modules.values()):
        names = [name for name, value in list(vars(module).items()) if value is task] if module is not None else []
        if names:
            return _file_of(module, names)
    raise TaskError(f"a task must be defined in a file, got task {quoted(task.name)} that is in no module", _HINT)


def _file_of(module: Any, names: list[str]) -> Path:
    file = Path(str(getattr(module, "__file__", None) or ""))
    if file.suffix != ".py" or not file.is_file() or _is_notebook(module):
        raise TaskError("a task must be defined in a file, got a task of a notebook or of an interactive session", _HINT)
    if _NAME not in names:
        raise TaskError(f"a file must name its task `{_NAME}`, got {quoted(names[0])} ({file.name})", f"{_NAME} = {names[0]}")
    return file


def _is_notebook(module: Any) -> bool:
    return module.__name__ == "__main__" and ("get_ipython" in vars(module) or "ipykernel" in sys.modules)


def _refuse_while_a_task_is_loaded() -> None:
    """Refuse a search by the file of a task that is being loaded: it would start another search, and that another one."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and str(frame.f_globals.get("__name__", "")).startswith(_LOADED):
            raise TaskError(
                "a task's file must define the task and no more when it is loaded, got a call of autocut",
                'put the call below `if __name__ == "__main__":`',
            )
        frame = frame.f_back
