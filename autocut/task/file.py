"""Imports a task.py, or reports in one line why it cannot.

The module's registered name is made from its absolute path. So a model class in it can be pickled here and found again in a worker
process that loads the same file. The folder of the file goes to the front of `sys.path`, as for a script. So ``import data`` finds
the data.py beside it, now and later inside a function.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import CodeType, ModuleType

from autocut.errors import AutocutError, TaskError, nearest_hint, quoted

_PREFIX = "autocut_task_"
_LONGEST_TEXT = 300
_UNKNOWN_ARGUMENT = re.compile(r"Task\.__init__\(\) got an unexpected keyword argument '(\w+)'")

_folders: set[Path] = set()
"""Folders of the tasks imported in this process. The data.py of one task must not be mistaken for that of another."""
_latest: dict[str, str] = {}
"""The module that was loaded last of the files of one name, by this name."""


@dataclass(frozen=True)
class TaskFile:
    """An imported task file. `files` are its source files by module name: the file itself and modules beside it.

    Every ``import`` in the source counts, so a module that a function imports only when it is called is among them. The list of
    modules that this process has imported later does not matter, because it differs between processes.
    """

    module: ModuleType
    files: tuple[tuple[str, Path], ...]

    def sha256(self) -> str:
        """SHA-256 over names and contents of the files on disk.

        Raises:
            OSError: one of the files is gone.
        """
        digest = hashlib.sha256()
        for name, file in self.files:
            digest.update(name.encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()


def module_name(path: Path) -> str:
    """Name of the module of the task file `path`. It is the same in every process."""
    return f"{_PREFIX}{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"


def module_here(name: str) -> str:
    """Return the name that the module `name` of a pickle has in this process.

    A task that was moved or copied has another module name than the one that its stored models were pickled with. Their keys say
    that it is the same source.
    """
    stem = name.removeprefix(_PREFIX).rpartition("_")[0]
    is_elsewhere = name.startswith(_PREFIX) and name not in sys.modules
    return _latest.get(stem, name) if is_elsewhere else name


def import_task_file(path: Path) -> TaskFile:
    """Import the Python file `path` and the modules beside it that it imports.

    Raises:
        TaskError: the file is missing, is not Python, or raises an error during import; the message names the line.
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
        exec(code, module.__dict__)  # as an import does
    except (Exception, SystemExit) as error:
        # A user's file may raise anything. The user must fix it, so the user gets a message, not a traceback.
        sys.modules.pop(name)
        if previous is not None:
            sys.modules[name] = previous
        raise _import_error(path, error) from error
    files = _reachable(path, _imported_from(path.parent))
    return TaskFile(module, (("", path), *sorted(files.items())))


def describe_error(error: BaseException, folder: Path | None) -> str:
    """Describe an exception from a user's code in one line: its type, the first line of its message, and the line of the file."""
    first, _, others = str(error).strip().partition("\n")
    # torch names the missing weights of a checkpoint in the line below "Error(s) in loading state_dict for Net:".
    text = f"{first} {others.strip().partition(chr(10))[0]}"[:_LONGEST_TEXT] if first.endswith(":") and others else first
    described = f"{type(error).__name__}: {text}" if text else type(error).__name__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if folder is not None and Path(frame.filename).parent == folder:
            return f"{described} ({Path(frame.filename).name}, line {frame.lineno})"
    return described


def compile_task_file(path: Path) -> CodeType:
    """Read and compile the task file `path`, without running it.

    Raises:
        TaskError: the file is missing, or is not Python; the message names the line.
    """
    if path.is_dir():
        inside = path / "task.py"
        raise TaskError(
            f"a task must be a Python file, got the folder {quoted(str(path))}",
            f"did you mean {quoted(str(inside))}?" if inside.is_file() else "give the path of a file that defines `task`",
        )
    if not path.is_file():
        near = nearest_hint(path.name, (file.name for file in path.parent.glob("*.py"))) if path.parent.is_dir() else None
        raise TaskError(
            f"a task file must exist, got {quoted(str(path))}",
            near or "give the path of your task.py; without one, autocut runs the digits task",
        )
    if path.suffix != ".py":
        raise TaskError(
            f"a task must be a Python file (.py), got {quoted(path.name)}", "define `task = autocut.Task(...)` in a task.py"
        )
    try:
        return compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:
        raise TaskError(
            f"a task file must be valid Python, got {type(error).__name__}: {error.msg} ({path.name}, line {error.lineno})",
            f"python -m py_compile {shlex.quote(str(path))} shows the place",
        ) from error
    except (OSError, ValueError) as error:
        hint = "check its permissions" if isinstance(error, OSError) else "save it as text in UTF-8"
        raise TaskError(f"a task file must be readable Python, got {error} ({path.name})", hint) from error


def take_over_path(path: Path, *, reloading: bool = False) -> None:
    """Put the task's folder first on `sys.path`, remove the folders of other tasks, and forget their modules of the same names.

    Raises:
        TaskError: a module beside the task has the name of a module that is imported already from elsewhere.
    """
    folder = path.parent
    _folders.add(folder)
    _latest[path.stem] = module_name(path)
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
                f"a module beside the task must not have the name of one that autocut uses, got {quoted(name)} ({file})",
                f"rename {name}.py",
            )


def _imports(path: Path, package: str = "") -> set[str]:
    """Dotted names in every import of the file, a module of `package`. Names that it imports from a module are included."""
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
    """By name, the modules `imported` and all modules beside `path` that an import in `path` or in any of these modules names."""
    found, waiting = dict(imported), [("", path), *imported.items()]
    while waiting:
        name, file = waiting.pop()
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        try:
            wanted = _imports(file, package)
        except (SyntaxError, ValueError):
            continue  # it was never imported, so it need not be valid Python
        new = {name: beside for dotted in wanted for name, beside in _beside(path.parent, dotted) if name not in found}
        found |= new
        waiting += new.items()
    return found


def _beside(folder: Path, dotted: str) -> Iterator[tuple[str, Path]]:
    """The modules in `folder` that ``import dotted`` reads: its packages, then the module itself."""
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
        # Not getattr: it would load lazy modules (six.moves, transformers).
        file = getattr(module, "__dict__", {}).get("__file__")
        # A task may lie in autocut's own checkout, but autocut's source is not part of the task.
        if not isinstance(file, str) or not file.startswith(start) or name.partition(".")[0] == "autocut":
            continue
        base = folder.joinpath(*name.split("."))
        if Path(file) in (base.with_suffix(".py"), base / "__init__.py"):
            found[name] = Path(file)
    return found


def _import_error(path: Path, error: BaseException) -> TaskError:
    hint = f"python {path.name} shows the traceback"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        hint = f"pip install {package}, or put {package}.py beside {path.name}"
    if isinstance(error, SystemExit | EOFError):
        hint = 'what reads arguments, asks or exits stands below `if __name__ == "__main__":`'
    if unknown := _UNKNOWN_ARGUMENT.search(str(error)):
        hint = _argument_hint(unknown[1])
    if isinstance(error, AutocutError) and error.hint:
        hint = error.hint
    return TaskError(f"a task file must import without an error, got {describe_error(error, path.parent)}", hint)


def _argument_hint(unknown: str) -> str:
    from autocut.task.task import Task  # imports this module

    names = [field.name for field in fields(Task) if field.init]
    return nearest_hint(unknown, names) or f"an argument of Task is one of {', '.join(names)}"
