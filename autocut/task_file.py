"""Imports a task.py, and says in one line what is wrong where it cannot.

The module is registered under a name made from its absolute path, so that a model class defined in it can be pickled here and
found again in a worker process that loads the same file. Its folder goes to the front of `sys.path`, as for a script, so that
``import data`` finds the data.py beside it, now and later inside a function.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

from autocut.errors import TaskError, nearest_hint

_folders: set[Path] = set()
"""Folders of the tasks imported in this process: a second task's data.py must not be mistaken for the first's."""


@dataclass(frozen=True)
class TaskFile:
    """An imported task file, with the files that its import read: itself and modules beside it, by module name."""

    module: ModuleType
    files: tuple[tuple[str, Path], ...]

    def sha256(self) -> str:
        """SHA-256 over names and contents as they are on disk now.

        Raises:
            OSError: one of the files is gone.
        """
        digest = hashlib.sha256()
        for name, file in self.files:
            digest.update(name.encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()


def module_name(path: Path) -> str:
    """Name of the module of the task file `path`; the same in every process."""
    return f"autocut_task_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"


def import_task_file(path: Path) -> TaskFile:
    """Import the Python file `path` and the modules beside it that it imports.

    Raises:
        TaskError: the file is missing, is not Python, or fails while it is imported; the message names the line.
    """
    path = path.resolve()
    code = _compile(path)
    name = module_name(path)
    previous = sys.modules.get(name)
    _take_over_path(path, reloading=previous is not None)
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)  # what importing a file is
    except (Exception, SystemExit) as error:
        # Anything can go wrong in a user's file. It is the user's to mend, so it is told, not traced.
        sys.modules.pop(name)
        if previous is not None:
            sys.modules[name] = previous
        raise _import_error(path, error) from error
    return TaskFile(module, (("", path), *sorted(_imported_from(path.parent).items())))


def tell(error: BaseException, folder: Path | None) -> str:
    """One line for an exception from a user's code: type, first line of its message, and the line of their file."""
    text = str(error).strip().partition("\n")[0]
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if folder is not None and Path(frame.filename).parent == folder:
            return f"{told} ({Path(frame.filename).name}, line {frame.lineno})"
    return told


def _compile(path: Path) -> CodeType:
    if path.is_dir():
        inside = path / "task.py"
        raise TaskError(
            f"a task must be a Python file, got the folder {str(path)!r}",
            f"did you mean {str(inside)!r}?" if inside.is_file() else None,
        )
    if not path.is_file():
        near = nearest_hint(path.name, (file.name for file in path.parent.glob("*.py"))) if path.parent.is_dir() else None
        raise TaskError(
            f"a task file must exist, got {str(path)!r}",
            near or "give the path of your task.py; without one, autocut runs the digits task",
        )
    if path.suffix != ".py":
        raise TaskError(f"a task must be a Python file (.py), got {path.name!r}", "define `task = autocut.Task(...)` in a task.py")
    try:
        return compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:
        raise TaskError(
            f"a task file must be valid Python, got {type(error).__name__}: {error.msg} ({path.name}, line {error.lineno})"
        ) from error
    except (OSError, ValueError) as error:
        raise TaskError(f"a task file must be readable Python, got {error} ({path.name})") from error


def _take_over_path(path: Path, *, reloading: bool) -> None:
    """Put the task's folder first on `sys.path`, in place of other tasks', and forget modules that would be taken for its own."""
    folder = path.parent
    _folders.add(folder)
    for other in _folders - {folder}:
        if str(other) in sys.path:
            sys.path.remove(str(other))
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    beside = {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/__init__.py")}
    stale = {name for other in _folders for name in _imported_from(other) if reloading or other != folder}
    for name in stale:
        if name.partition(".")[0] in beside:
            del sys.modules[name]
    own = _imported_from(folder)
    for name in sorted(_imports(path) & beside & set(sys.modules)):
        if name not in own:
            file = getattr(sys.modules[name], "__file__", None)
            raise TaskError(
                f"a module beside the task must not have the name of one that autocut uses, got {name!r} ({file})",
                f"rename {name}.py",
            )


def _imports(path: Path) -> set[str]:
    """Top-level names that the file imports absolutely."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def _imported_from(folder: Path) -> dict[str, Path]:
    """Imported modules that ``import`` finds in `folder`, by name."""
    found = {}
    start = f"{folder}{os.sep}"
    for name, module in list(sys.modules.items()):
        # Not getattr: modules that load themselves when touched (six.moves, transformers) would.
        file = getattr(module, "__dict__", {}).get("__file__")
        # A task may lie in autocut's own checkout: the version of autocut is not part of the task.
        if not isinstance(file, str) or not file.startswith(start) or name.partition(".")[0] == "autocut":
            continue
        base = folder.joinpath(*name.split("."))
        if Path(file) in (base.with_suffix(".py"), base / "__init__.py"):
            found[name] = Path(file)
    return found


def _import_error(path: Path, error: BaseException) -> TaskError:
    told = tell(error, path.parent)
    hint = f"python {path.name} shows the traceback"
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"pip install {error.name.partition('.')[0]}, or put {error.name.partition('.')[0]}.py beside {path.name}"
    return TaskError(f"a task file must import without an error, got {told}", hint)
