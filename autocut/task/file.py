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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

from autocut.errors import TaskError, nearest_hint

_folders: set[Path] = set()
"""Folders of the tasks imported in this process: a second task's data.py must not be mistaken for the first's."""


@dataclass(frozen=True)
class TaskFile:
    """An imported task file, with the files of its own that it is made of, by module name: itself and modules beside it.

    Those that its import read, and those that an ``import`` anywhere in them names, so that what a function imports when it is
    called counts too. Read from the source, not from what this process has imported by now, which differs between processes.
    """

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
    code = compile_task_file(path)
    name = module_name(path)
    previous = sys.modules.get(name)
    take_over_path(path, reloading=previous is not None)
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
    files = _reachable(path, _imported_from(path.parent))
    return TaskFile(module, (("", path), *sorted(files.items())))


def describe_error(error: BaseException, folder: Path | None) -> str:
    """One line for an exception from a user's code: type, first line of its message, and the line of their file."""
    text = str(error).strip().partition("\n")[0]
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if folder is not None and Path(frame.filename).parent == folder:
            return f"{told} ({Path(frame.filename).name}, line {frame.lineno})"
    return told


def compile_task_file(path: Path) -> CodeType:
    """Read and compile the task file `path`, without running any of it.

    Raises:
        TaskError: it is missing, or is not Python; the message names the line.
    """
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


def take_over_path(path: Path, *, reloading: bool = False) -> None:
    """Put the task's folder first on `sys.path`, in place of other tasks', and forget modules that would be taken for its own.

    Raises:
        TaskError: a module beside the task has the name of one that is imported already, and is not the task's.
    """
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
    for name in sorted({dotted.partition(".")[0] for dotted in _imports(path)} & beside & set(sys.modules)):
        if name not in own:
            file = getattr(sys.modules[name], "__file__", None)
            raise TaskError(
                f"a module beside the task must not have the name of one that autocut uses, got {name!r} ({file})",
                f"rename {name}.py",
            )


def _imports(path: Path, package: str = "") -> set[str]:
    """Dotted names that the file, a module of `package`, may import anywhere in it; names taken from a module are among them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module]))
            found.update({base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)})
    return found - {""}


def _reachable(path: Path, imported: dict[str, Path]) -> dict[str, Path]:
    """`imported`, and the modules beside `path` that `path` or any of them names in an import, by name."""
    found, waiting = dict(imported), [("", path), *imported.items()]
    while waiting:
        name, file = waiting.pop()
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        try:
            wanted = _imports(file, package)
        except (SyntaxError, ValueError):
            continue  # nothing has imported it, so it may be anything
        new = {name: beside for dotted in wanted for name, beside in _beside(path.parent, dotted) if name not in found}
        found |= new
        waiting += new.items()
    return found


def _beside(folder: Path, dotted: str) -> Iterator[tuple[str, Path]]:
    """The modules in `folder` that ``import dotted`` reads: its packages, then itself."""
    parts = dotted.split(".")
    if parts[0] == "autocut":
        return  # as in `_imported_from`
    for count in range(1, len(parts) + 1):
        base = folder.joinpath(*parts[:count])
        for file in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if file.is_file():
                yield ".".join(parts[:count]), file
                break


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
    told = describe_error(error, path.parent)
    hint = f"python {path.name} shows the traceback"
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"pip install {error.name.partition('.')[0]}, or put {error.name.partition('.')[0]}.py beside {path.name}"
    return TaskError(f"a task file must import without an error, got {told}", hint)
